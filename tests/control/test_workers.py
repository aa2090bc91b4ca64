"""Workers: inference beside the loop, in a thread and in a process, with the same results and the same errors."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted import Steps

from specpolicy.control.chunk import Chunk
from specpolicy.control.planner import PolicyPlanner, as_planner
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.worker import Closed, InlineWorker, ThreadWorker
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


class Reusing(Steps):
    """Plans into the same array every time."""

    memory = np.zeros((8, 2))

    def plan(self, history):
        self.memory[:] = super().plan(history).actions
        return Chunk(self.memory)


def test_a_planner_may_use_its_memory_again(make):
    worker = make(Reusing())
    worker.reset(0)
    worker.submit(HISTORY)
    first = worker.result(PATIENCE)
    worker.submit({"step": np.array([50.0])})
    assert worker.result(PATIENCE).actions[0, 0] == 50 and first.actions[0, 0] == 3


class Lists(Steps):
    def plan(self, history):
        return Chunk(super().plan(history).actions.tolist())


def test_actions_may_be_lists(make):
    worker = make(Lists())
    worker.reset(0)
    worker.submit(HISTORY)
    np.testing.assert_array_equal(worker.result(PATIENCE).actions[:, 0], np.arange(3, 11))


def not_there():
    raise AttributeError("Can't get attribute 'Planner' on <module '__main__'>")


class Lost(Steps):
    """A planner of an interactive session: its pickle names a class that no process finds."""

    def __reduce__(self):
        return not_there, ()


def test_a_planner_that_its_process_does_not_find():
    worker = ProcessWorker(Lost())
    with pytest.raises(SpecpolicyError, match="define it in a module, or use worker='thread'"):
        worker.reset(0)
    worker.close()


class Obliging(Steps):
    """Plans what the observation asks for: a chunk of so many numbers, or a sum over all that it sees."""

    def plan(self, history):
        chunk = super().plan({"step": history.get("step", np.zeros(1))})
        if "size" in history:
            return dataclasses.replace(chunk, actions=np.zeros((1, int(history["size"][0]))))
        if "echo" in history:
            return dataclasses.replace(chunk, actions=np.full((1, 1), total(history)))
        return chunk


def total(history):
    """A sum that tells dtypes, orders and keys apart."""
    parts = {key: (value.dtype.str, value.shape, value.tolist()) for key, value in history.items()}
    return float(zlib.crc32(repr(parts).encode()))


@pytest.fixture(scope="module")
def obliging():
    """A process worker that many tests share; each begins with `reset`."""
    planner = Obliging()
    planner.weights = np.zeros(10**6)  # more than fits between two processes at once
    worker = ProcessWorker(planner)
    yield worker
    worker.close()


def returns(call, *arguments):
    """What `call` returns, if it does."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call(*arguments)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it does not come back"
    return found[0]


@contextlib.contextmanager
def stopped(worker):
    """The process of a worker stands still."""
    os.kill(worker._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker._process.pid, signal.SIGCONT)


def images(number):
    return {"step": np.array([float(number)]), "camera": np.full((1, 1024, 1024, 3), number, np.uint8)}


def test_a_stopped_process_keeps_no_call_from_coming_back(obliging):
    """Nor is anything lost: when it goes on, it is the newest observation that is answered."""
    obliging.reset(0)
    obliging.submit(images(0))
    assert obliging.result(PATIENCE) is not None
    with stopped(obliging):
        for number in range(1, 60):
            returns(obliging.submit, images(number))
            assert returns(obliging.result) is None
    assert obliging.result(PATIENCE).actions[0, 0] == 59
    assert obliging.result(0.1) is None


@pytest.mark.parametrize("kind", (InlineWorker, ThreadWorker, ProcessWorker))
def test_the_latest_observation_wins(kind):
    worker = kind(Steps(sleep=0.05))
    worker.reset(0)
    for number in range(5):
        worker.submit({"step": np.array([float(number)])})
    assert worker.result(PATIENCE).actions[0, 0] == 4
    worker.submit(HISTORY)
    worker.reset(0)  # a new episode: nothing of the one before comes up
    assert worker.result(0.3) is None or kind is InlineWorker
    worker.close()


def test_an_answer_that_has_come_in_part_keeps_nobody_waiting(obliging):
    obliging.reset(0)
    obliging.submit({"size": np.array([10**6])})
    assert obliging.result() is None
    time.sleep(1.0)  # it writes until no more fits between the two
    with stopped(obliging):
        for _ in range(20):
            assert returns(obliging.result) is None
    assert obliging.result(PATIENCE).actions.shape == (1, 10**6)


def test_an_answer_too_large_for_the_loop_is_refused(obliging):
    obliging.reset(0)
    obliging.submit({"size": np.array([3 * 10**6])})
    with pytest.raises(SpecpolicyError, match="chunk takes 23 MiB, of which 16 are allowed"):
        obliging.result(PATIENCE)
    obliging.submit({"size": np.array([3])})  # no fault for ever
    assert obliging.result(PATIENCE).actions.shape == (1, 3)


def shared(process):
    """What a process shares with others by memory: mappings and open files."""
    mapped = [line.split(maxsplit=5)[-1] for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
    opened = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            opened.append(os.readlink(link))
    names = ("/memfd:specpolicy", "/dev/shm/psm_", "/dev/shm/torch_", "/dev/shm/pym-")
    return [path for path in (*mapped, *opened) if path.startswith(names)]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_a_killed_process_leaves_no_memory_behind():
    """Images are in memory without a name, which is gone with those who look at it."""
    before = shared("self")
    worker = ProcessWorker(Steps())
    worker.reset(0)
    worker.submit(images(7))
    assert worker.result(PATIENCE).actions[0, 0] == 7
    process = worker._process.pid
    ours, theirs = Counter(shared("self")) - Counter(before), Counter(shared(process))
    assert min(ours.total(), theirs.total()) >= 2  # each has it open and mapped
    assert all(path.startswith("/memfd:") for path in (*ours, *theirs))  # none in /dev/shm
    os.kill(process, signal.SIGKILL)
    with pytest.raises(SpecpolicyError, match="the inference process has died"):
        worker.submit(images(8))
        worker.result(PATIENCE)
    worker.close()
    assert sorted(shared("self")) == sorted(before)


def test_every_kind_of_array_comes_through_unchanged(obliging):
    source = np.random.default_rng(0)
    obliging.reset(0)
    for _ in range(2):
        history = {
            "echo": np.zeros(1),
            "scalars": source.normal(size=2).astype(">f4"),
            "nothing": np.zeros((2, 0)),
            "flags": source.integers(0, 2, (2, 3)).astype(bool),
            "slice": source.normal(size=(2, 6, 5))[:, ::2].astype(np.float16),
            "camera": source.integers(0, 255, (2, 5, 7, 3), np.uint8).transpose(0, 3, 1, 2),
            "numbers": source.integers(-9, 9, (2, 1)),
        }
        obliging.submit(history)
        assert obliging.result(PATIENCE).actions[0, 0] == total(history)


@pytest.mark.parametrize(
    "changed, message",
    (
        ({"step": np.zeros(2)}, r"'step' is float64 of shape \(2,\), at the start it was float64 of shape \(1,\)"),
        ({"step": np.zeros(1, np.float32)}, r"'step' is float32 .*, at the start it was float64"),
        ({"other": np.zeros(1)}, "observed are other, at the start it was step"),
        ({"step": np.zeros(1), "other": np.zeros(1)}, "observed are step, other, at the start it was step"),
    ),
)
def test_observations_of_an_episode_are_alike(obliging, changed, message):
    obliging.reset(0)
    obliging.submit(HISTORY)
    assert obliging.result(PATIENCE) is not None
    with pytest.raises(SpecpolicyError, match=message):
        obliging.submit(changed)
    obliging.reset(0)
    obliging.submit({"step": np.zeros(3, np.float32), "camera": np.zeros((1, 9), np.uint8)})
    assert obliging.result(PATIENCE) is not None
    obliging.reset(0)
    with pytest.raises(SpecpolicyError, match="'step' holds object, not numbers"):
        obliging.submit({"step": np.array([None])})


def test_a_stopped_process_ends_with_a_killed_parent(tmp_path):
    """Also if it was started by a thread that has ended; and nobody complains of what is left."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, threading, time\n"
        "import numpy as np\n"
        "from scripted import Steps\n"
        "from specpolicy.control.process_worker import ProcessWorker\n"
        "if __name__ == '__main__':\n"
        "    worker = ProcessWorker(Steps())\n"
        "    thread = threading.Thread(target=worker.reset, args=(0,))\n"
        "    thread.start(); thread.join()\n"
        "    for _ in range(3):\n"
        "        worker.submit({'step': np.zeros(1), 'camera': np.zeros((1, 999, 999), np.uint8)})\n"
        "        assert worker.result(60) is not None\n"
        "    print(worker._process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    try:
        os.kill(child, signal.SIGSTOP)
        parent.kill()
        deadline = time.monotonic() + 20
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(child)
    finally:
        parent.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, error = parent.communicate(timeout=60)  # all who could complain have gone
    assert error == ""


def alive(pid):
    """Whether a process runs or is stopped; one that has ended may wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
