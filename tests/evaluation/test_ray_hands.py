"""Who does what on a Ray cluster, with a stand-in for Ray: whoever fails, hangs or dies, every job is done or named."""

from types import SimpleNamespace

import pytest
from growing import Growing

from specpolicy import SpecpolicyError
from specpolicy.cluster import Work
from specpolicy.cluster.limits import Limit
from specpolicy.cluster.ray_hands import Group, Hands


class TaskError(Exception):
    """What Ray raises where a job itself has failed."""


HANGS = object()  # result of a job that never ends


class Pretended:
    """Stands for Ray: actors answer at once, in the order they were asked, or never."""

    exceptions = SimpleNamespace(RayTaskError=TaskError)

    def wait(self, references, num_returns=1, timeout=None):
        done = [reference for reference in references if reference.value is not HANGS][:num_returns]
        assert done or timeout is not None, "nothing will ever end this wait"
        return done, [reference for reference in references if reference not in done]

    def get(self, reference):
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def kill(self, actor):
        actor.killed = True


class Reference:
    def __init__(self, value):
        self.value = value


class Actor:
    """On a node; does a job by a function (node, job) that may return an exception. `ready`: what it says at first."""

    def __init__(self, node, do, ready=None):
        self.node, self.killed, self.done = node, False, []
        self.ready = SimpleNamespace(remote=lambda: Reference(ready or [node]))

        def remote(job):
            self.done.append(job)
            return Reference(do(node, job))

        self.do = SimpleNamespace(remote=remote)


def pretend(do, nodes, slots=1, retries=2, jobs=range(8), timeout=None, ready=None):
    """Results, and the actors of all groups ever begun. `ready`: what nodes say at first if not their name."""
    begun, met = [], []

    def maker(node):
        def make():
            begun.append(Actor(node, do, (ready or {}).get(node)))
            return Group([begun[-1]], slots)

        return make

    makers = [maker(node) for node in nodes]
    hands = Hands(Pretended(), [make() for make in makers], makers, retries, met.extend, Limit(timeout))
    found = []
    try:
        for result in hands.run(Work(str, None), iter(jobs)):
            found.append(result)
    except SpecpolicyError as error:
        found.append(str(error))
    assert {*met} <= {*nodes}
    return found, begun


def test_a_job_that_fails_on_one_node_is_done_on_another():
    found, begun = pretend(lambda node, job: OSError("gone") if (node, job) == ("a", 3) else job, "ab")
    assert sorted(found) == list(range(8))
    assert all(actor.killed for actor in begun)


@pytest.mark.parametrize("error", (OSError("the process died"), TaskError("no such file")))
def test_what_fails_everywhere_is_named_and_the_others_are_done(error):
    found, begun = pretend(lambda node, job: error if job == 3 else job, "ab", retries=2)
    assert sorted(found[:-1]) == [0, 1, 2, 4, 5, 6, 7]
    assert found[-1].startswith("1 of the jobs failed wherever") and f"3 ({type(error).__name__}: {error})" in found[-1]
    assert sum(actor.done.count(3) for actor in begun) == 3


@pytest.mark.parametrize("slots", (2, 3))
def test_neighbours_of_a_job_that_kills_its_group_are_not_blamed(slots):
    """It is tried again alone: a second death is its own."""
    found, _ = pretend(lambda node, job: OSError("dead") if job == 3 else job, "a", slots, retries=1)
    assert sorted(found[:-1]) == [0, 1, 2, 4, 5, 6, 7] and "1 of the jobs failed" in found[-1]


@pytest.mark.parametrize("slots", (1, 3))
def test_a_job_that_hangs_is_done_elsewhere_and_its_neighbours_are_not_blamed(slots):
    found, begun = pretend(lambda node, job: HANGS if (node, job) == ("a", 3) else job, "ab", slots, timeout=0)
    assert sorted(found) == list(range(8)) and all(actor.killed for actor in begun)
    found, begun = pretend(lambda node, job: HANGS if job == 3 else job, "ab", slots, retries=1, timeout=0)
    assert sorted(found[:-1]) == [0, 1, 2, 4, 5, 6, 7] and "3 (Late: not ended in 0 s (cluster.timeout))" in found[-1]
    assert sum(actor.done.count(3) for actor in begun) == 2


def test_processes_that_die_as_they_begin_end_the_run():
    found, begun = pretend(lambda node, job: job, "ab", ready=dict.fromkeys("ab", OSError("no memory")))
    assert len(found) == 1 and "processes die as they begin, 7 in a row (OSError: no memory)" in found[0]
    assert all(actor.killed for actor in begun) and not any(actor.done for actor in begun)


def test_a_node_where_nothing_begins_does_not_end_a_run_that_goes_on_elsewhere():
    found, begun = pretend(lambda node, job: job, "ab", jobs=range(40), ready={"b": OSError("no memory")})
    assert found == list(range(40)) and sum(actor.node == "b" for actor in begun) > 7


def test_jobs_that_depend_on_results_are_asked_for_again():
    jobs = Growing([1])

    def do(node, job):
        if job < 4:
            jobs.left.append(job + 1)
        return job

    assert pretend(do, "ab", jobs=jobs)[0] == [1, 2, 3, 4]
