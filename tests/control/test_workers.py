"""Workers: inference beside the loop, in a thread and in a process, with the same results and the same errors."""

import dataclasses

import numpy as np
import pytest
import torch
from scripted import Steps

from specpolicy.control.planner import PolicyPlanner, as_planner
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.worker import InlineWorker, ThreadWorker
from specpolicy.errors import SpecpolicyError

PATIENCE = 60.0
HISTORY = {"step": np.array([3.0])}


@pytest.fixture(params=(InlineWorker, ThreadWorker, ProcessWorker))
def make(request):
    """Makes workers of one kind and closes them."""
    workers = []

    def make(planner):
        workers.append(request.param(planner))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def test_a_worker_answers_what_its_planner_plans(make):
    worker = make(Steps(seconds=0.25))
    assert (worker.n_obs_steps, worker.n_action_steps) == (1, 4)
    worker.reset(0)
    assert worker.result() is None
    for _ in range(3):
        worker.submit(HISTORY)
        chunk = worker.result(PATIENCE)
        np.testing.assert_array_equal(chunk.actions[:, 0], np.arange(3, 11))
        assert (chunk.calls, chunk.rows, chunk.network_seconds) == (3, 6, 0.125) and chunk.seconds > 0
        assert worker.result() is None


def test_the_time_of_a_chunk_counts_from_its_request(make):
    worker = make(Steps(sleep=0.05, seconds=0.05))
    worker.reset(0)
    worker.submit(HISTORY)
    assert worker.result(PATIENCE).seconds >= 0.05


def test_a_closed_worker_can_be_used_again(make):
    worker = make(Steps())
    for _ in range(2):
        worker.reset(0)
        worker.submit(HISTORY)
        assert worker.result(PATIENCE) is not None
        worker.close()
    worker.close()


@pytest.mark.parametrize("kind", (ThreadWorker, ProcessWorker))
def test_an_exception_comes_out_as_one_line(kind):
    worker = kind(Steps(fault="raise", at=1))
    try:
        worker.reset(0)
        worker.submit(HISTORY)
        assert worker.result(PATIENCE) is not None
        worker.submit(HISTORY)
        with pytest.raises(SpecpolicyError, match=r"^inference failed: ZeroDivisionError: a planner divided by zero$"):
            worker.result(PATIENCE)
    finally:
        worker.close()


def test_a_planner_that_returns_no_chunk(make):
    worker = make(Steps(fault="none"))
    worker.reset(0)
    with pytest.raises(SpecpolicyError, match="must return a Chunk, got NoneType"):
        worker.submit(HISTORY)
        worker.result(PATIENCE)


def test_a_process_that_dies_is_an_error():
    worker = ProcessWorker(Steps(fault="die"))
    worker.reset(0)
    worker.submit(HISTORY)
    with pytest.raises(SpecpolicyError, match=r"died \(exit code 3"):
        worker.result(PATIENCE)
    worker.close()


@pytest.mark.parametrize("kind", (ThreadWorker, ProcessWorker))
def test_closing_does_not_wait_for_a_planner_that_hangs(kind):
    worker = kind(Steps(fault="hang"))
    worker.reset(0)
    worker.submit(HISTORY)
    assert worker.result(0.2) is None
    process = getattr(worker, "_process", None)
    worker.close()
    assert process is None or not process.is_alive()


def test_what_cannot_be_sent_to_a_process_is_refused_at_once():
    planner = Steps()
    planner.helper = lambda: None
    with pytest.raises(SpecpolicyError, match="worker='thread'"):
        ProcessWorker(planner)


def test_a_policy_draws_the_same_chunks_wherever_it_runs(make, small_policy):
    planner = PolicyPlanner(small_policy, "ddim")
    history = {"position": np.zeros((2, 2)), "object": np.ones((2, 3)), "unused": np.zeros((2, 1))}
    worker = make(planner)
    for _ in range(2):
        worker.reset(7)
        generator = torch.Generator().manual_seed(7)
        for _ in range(2):
            worker.submit(history)
            chunk = worker.result(PATIENCE)
            expected = small_policy.predict(history, sampler="ddim", generator=generator).actions[0, 1:].numpy()
            np.testing.assert_allclose(chunk.actions, expected, atol=1e-6)
            assert chunk.calls == 10


def test_the_sampler_is_handed_on_to_the_policy():
    """The loop knows no samplers: whatever it is given reaches the policy."""

    @dataclasses.dataclass
    class Stub:
        n_obs_steps: int = 1
        n_action_steps: int = 1
        observation_keys: tuple = ("x",)

        def predict(self, observation, sampler, generator):
            raise SpecpolicyError(f"asked for {sampler} of {list(observation)}")

    planner = as_planner(Stub(), "of my own")
    planner.reset(0)
    with pytest.raises(SpecpolicyError, match=r"asked for of my own of \['x'\]"):
        planner.plan({"x": np.zeros(1), "y": np.zeros(1)})
    with pytest.raises(SpecpolicyError, match="observes 'x', which is not observed here"):
        planner.plan({"y": np.zeros(1)})
    assert as_planner(steps := Steps()) is steps
    with pytest.raises(SpecpolicyError, match="int is no policy"):
        as_planner(3)
