"""The process of an inference worker: what it shares with the loop, and what its end leaves behind."""

import contextlib
import dataclasses
import importlib
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
from scripted import Steps

from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.worker import InlineWorker, ThreadWorker
from specpolicy.errors import SpecpolicyError

PATIENCE = 60.0
HISTORY = {"step": np.array([3.0])}


class Obliging(Steps):
    """Plans what the observation asks for: a chunk of so many numbers, a sum over all that it sees, or with how many
    threads torch computes, if it is there."""

    def plan(self, history):
        chunk = super().plan({"step": history.get("step", np.zeros(1))})
        if "size" in history:
            return dataclasses.replace(chunk, actions=np.zeros((1, int(history["size"][0]))))
        if "threads" in history:
            torch = sys.modules.get("torch")
            return dataclasses.replace(chunk, actions=np.full((1, 1), torch.get_num_threads() if torch else 0))
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


class Heavy(Obliging):
    """Its pickle brings torch."""

    def __setstate__(self, state):
        importlib.import_module("torch")
        vars(self).update(state)


def test_torch_comes_with_the_planner_that_needs_it_and_has_the_threads_of_the_worker(obliging):
    """Its import takes longer than all else in the start of a process."""
    heavy = ProcessWorker(Heavy(), threads=3)
    for worker, expected in ((obliging, 0), (heavy, 3)):
        worker.reset(0)
        worker.submit({"threads": np.zeros(1)})
        assert worker.result(PATIENCE).actions.item() == expected
    heavy.close()


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
