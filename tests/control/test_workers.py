"""Workers: inference beside the loop, in a thread and in a process, with the same results and the same errors."""

import contextlib
import dataclasses
import threading
import time

import numpy as np
import pytest
import torch
from scripted import Explaining, Lists, Lost, Reusing, Steps, Unreadable

from specpolicy.control.planner import PolicyPlanner, as_planner
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.worker import Closed, InlineWorker, ThreadWorker, inference_error
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import DiffusionPolicy

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
        assert (chunk.calls, chunk.rows, chunk.network_seconds, chunk.encode_seconds) == (3, 6, 0.125, 0.0625)
        assert chunk.seconds > 0
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


def test_a_policy_that_sees_draws_the_same_chunks_wherever_it_runs(make, policy_config):
    """To the last bit, though it encodes only frames that it has not seen yet."""
    torch.manual_seed(0)
    policy_config["observation"] = {"camera": [3, 33, 33], "position": 2}
    policy_config["vision"] = {"keypoints": 4, "features": 4}
    policy_config["normaliser"]["camera"] = {"scale": [2.0], "offset": [-1.0]}
    policy_config["normaliser"].pop("object")
    policy, source = DiffusionPolicy.from_config(policy_config), np.random.default_rng(0)
    pictures, places = source.integers(0, 256, (5, 33, 33, 3), np.uint8), source.normal(size=(5, 2))
    worker, generator = make(PolicyPlanner(policy, "block")), torch.Generator().manual_seed(4)
    worker.reset(4)
    for now in range(1, 5):
        history = {"camera": pictures[now - 1 : now + 1], "position": places[now - 1 : now + 1]}
        worker.submit(history)
        found = worker.result(PATIENCE).actions
        policy.forget_frames()
        np.testing.assert_array_equal(found, policy.predict(history, "block", generator).actions[0, 1:])
    assert len(policy.encoding.cache) > 0
    PolicyPlanner(policy, "block").reset(0)  # the next episode takes its own time
    assert len(policy.encoding.cache) == 0
    pictures[4, 16, 16] ^= 255  # the loop's own memory, filled anew
    worker.submit(history)
    changed = policy.predict(history, "block", generator).actions[0, 1:].numpy()
    np.testing.assert_array_equal(worker.result(PATIENCE).actions, changed)


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


class Careful(Steps):
    """Notices when two threads use it at once. A plan goes on until it is let go."""

    def __init__(self):
        super().__init__()
        self.busy, self.overlaps, self.planning, self.going = threading.Lock(), 0, threading.Event(), threading.Event()

    @contextlib.contextmanager
    def alone(self):
        alone = self.busy.acquire(blocking=False)
        self.overlaps += not alone
        yield
        if alone:
            self.busy.release()

    def reset(self, seed):
        with self.alone():
            super().reset(seed)

    def plan(self, history):
        with self.alone():
            self.planning.set()
            self.going.wait()
            return super().plan(history)


@pytest.mark.parametrize("closed", (False, True))
def test_a_planner_is_used_by_one_thread_at_a_time(monkeypatch, closed):
    """Also where a plan of the run before goes on: what it draws is in no chunk of the next one."""
    monkeypatch.setattr("specpolicy.control.worker.CLOSE_SECONDS", 0.05)
    planner = Careful()
    worker = ThreadWorker(planner)
    worker.reset(0)
    worker.submit(HISTORY)
    planner.planning.wait()
    if closed:
        worker.close()
    threading.Timer(0.2, planner.going.set).start()
    worker.reset(1)
    worker.submit({"step": np.array([8.0])})
    assert worker.result(PATIENCE).actions[0, 0] == 8 and worker.result() is None
    assert not planner.overlaps and planner.seed == 1 and len(planner.histories) == 1
    worker.close()


@pytest.mark.parametrize("kind", (ThreadWorker, ProcessWorker))
def test_a_worker_that_is_closed_by_another_thread_keeps_nobody_waiting(kind):
    worker, raised = kind(Steps(fault="hang")), []
    worker.reset(0)
    worker.submit(HISTORY)

    def wait():
        try:
            worker.result(PATIENCE)
        except Closed as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    worker.close()
    waiting.join(PATIENCE / 2)
    assert len(raised) == 1


def test_a_planner_may_use_its_memory_again(make):
    worker = make(Reusing())
    worker.reset(0)
    worker.submit(HISTORY)
    first = worker.result(PATIENCE)
    worker.submit({"step": np.array([50.0])})
    assert worker.result(PATIENCE).actions[0, 0] == 50 and first.actions[0, 0] == 3


def test_actions_may_be_lists(make):
    worker = make(Lists())
    worker.reset(0)
    worker.submit(HISTORY)
    np.testing.assert_array_equal(worker.result(PATIENCE).actions[:, 0], np.arange(3, 11))


def test_a_planner_that_its_process_does_not_find():
    worker = ProcessWorker(Lost())
    with pytest.raises(SpecpolicyError, match="define it in a module, or use worker='thread'"):
        worker.reset(0)
    worker.close()


def test_a_planner_that_says_why_its_process_has_none():
    worker = ProcessWorker(Explaining())
    with pytest.raises(SpecpolicyError, match=r"^inference failed: the camera is taken: close the other program$"):
        worker.reset(0)
    worker.close()


class Silent(SpecpolicyError):
    """An error of ours whose text cannot be read."""

    def __str__(self):
        raise RuntimeError("there is no text")


@pytest.mark.parametrize(
    "error, text",
    (
        (ValueError("no"), "inference failed: ValueError: no"),
        (SpecpolicyError("no"), "inference failed: no"),
        (Silent(), "inference failed: Silent"),
        (Unreadable(), "inference failed: Unreadable"),
    ),
)
def test_an_error_of_inference_has_a_text_whatever_the_planner_raised(error, text):
    assert str(inference_error(error)) == text
