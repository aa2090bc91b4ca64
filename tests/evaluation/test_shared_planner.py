"""A planner that processes share: the rows are those of processes with a policy each, to the bit."""

import dataclasses
import os
import queue
import threading

import pytest
from growing import Growing

from specpolicy import SpecpolicyError
from specpolicy.cluster import Processes
from specpolicy.cluster.limits import Limit
from specpolicy.cluster.seats import do_at
from specpolicy.cluster.work import Work
from specpolicy.cluster.worlds import deal, in_threads, places, run_shared, teams_of
from specpolicy.evaluation import runner, settings
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.runner import Evaluation


@pytest.mark.parametrize("workers, size", ((1, 1), (1, 4), (2, 3), (3, 2), (15, 64), (15, 4)))
def test_every_team_is_whole_and_spread_over_the_processes(workers, size):
    count = teams_of(size, workers)
    per_process = places(workers, count * size)
    assert max(per_process) - min(per_process) <= 1
    seats = [[(process, number) for number in range(own)] for process, own in enumerate(per_process)]
    teams = deal(seats, size)
    assert len(teams) == count >= 2
    assert sorted(seat for team in teams for seat in team) == sorted(seat for own in seats for seat in own)
    for team in teams:
        used = [process for process, _ in team]
        assert len(team) == size and len(set(used)) == min(size, workers)


def test_threads_ask_for_jobs_again_after_each_result_and_failures_are_raised():
    jobs = Growing([1, 2, 3])
    found = []
    for result in in_threads(lambda job: 10 * job, jobs, 2):
        found.append(result)
        if len(found) == 3:
            jobs.left.append(4)  # it had stopped
    assert sorted(found) == [10, 20, 30, 40]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda job: 1 // job, [1, 0], 2))


def test_a_job_of_threads_that_hangs_is_named():
    never, limit, found = threading.Event(), Limit(), []
    with pytest.raises(SpecpolicyError, match=r"^3: not ended in 0.1 s"):
        for result in in_threads(lambda job: never.wait() if job == 3 else job, [1, 2, 3], 2, limit):
            found.append(result)
            limit.seconds = 0.1 if len(found) == 2 else None
    assert sorted(found) == [1, 2]
    never.set()


class Planner:
    """Answers what one seat of a free team asks."""

    def __init__(self, setup, teams):
        self.free = queue.SimpleQueue()
        for team in teams:
            self.free.put(team)

    def __call__(self, job):
        team = self.free.get()
        try:
            return do_at(team[0], job, lambda question: 10 * question)
        finally:
            self.free.put(team)


def make_world(setup):
    return world


def world(seat, job, ask):
    if job == "hang":
        threading.Event().wait()
    return os.getpid(), ask(job)


def test_a_world_that_hangs_is_named_and_ended():
    limit = Limit(name=lambda job: f"job {job}")
    found = run_shared(Work(Planner, None, share=Planner, world=make_world), [1, "hang"], 1, limit)
    pid, answer = next(found)
    assert answer == 10
    limit.seconds = 0.1
    with pytest.raises(SpecpolicyError, match=r"^job hang: not ended in 0.1 s \(cluster.timeout\)"):
        next(found)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def outcomes(evaluation, output, crew):
    """The rows without their measured times, in an order of their own."""
    results = settings.claim(evaluation, runner.check(evaluation, crew.planners), output)
    runner.play(evaluation, results, output, crew)
    rows = [
        {name: value for name, value in row.items() if "seconds_" not in name and "_share" not in name}
        for row in results.episodes.rows
    ]
    chunks = sorted((row["condition"], row["seed"], row["chunk"], row["calls"]) for row in results.chunks.rows)
    return sorted(rows, key=lambda row: (row["condition"], int(row["seed"]))), chunks


@pytest.fixture
def evaluation(drift_task, drift_policy):
    samplers = {"ddim-4": {"name": "ddim", "steps": 4, "eta": 1.0}, "recycled": {"name": "recycled"}}
    conditions = (Condition("ddim-4"), Condition("recycled", "delay", 2, stitching="inpaint"))
    return Evaluation(Setup(drift_task, drift_policy, samplers), conditions, episodes=7, seed=100)


@pytest.mark.parametrize("batch, workers", ((1, 1), (3, 2)))
def test_rows_are_those_of_processes_with_a_policy_each(evaluation, tmp_path, batch, workers):
    evaluation = dataclasses.replace(evaluation, setup=dataclasses.replace(evaluation.setup, batch=batch))
    expected = outcomes(evaluation, tmp_path / "own", Processes())
    assert len(expected[0]) == 14
    assert outcomes(evaluation, tmp_path / "shared", Processes(workers, planners=1)) == expected


def test_measured_times_are_not_charged_where_a_device_is_shared(evaluation):
    charged = dataclasses.replace(evaluation, conditions=(Condition("ddim-4", clock="charged"),))
    with pytest.raises(SpecpolicyError, match="planners=1: on a shared device"):
        runner.check(charged, planners=1)


def test_a_world_that_dies_is_named_and_what_is_finished_is_kept(evaluation, tmp_path):
    task = {**evaluation.setup.task, "kwargs": {"dies_at": 104}}
    broken = dataclasses.replace(evaluation, setup=dataclasses.replace(evaluation.setup, task=task))
    with pytest.raises(SpecpolicyError, match="a worker process died"):
        outcomes(broken, tmp_path, Processes(1, planners=1))
    assert len((tmp_path / "episodes.csv").read_text().splitlines()) > 1
