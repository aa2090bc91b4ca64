"""Inference in its own process, which shares neither the interpreter nor its lock with the control loop."""

import contextlib
import math
import multiprocessing
import os
import pickle
import socket
import sys
import time
import traceback
from typing import Any

import numpy as np

from specpolicy.committed import Committed
from specpolicy.control.channel import Channel
from specpolicy.control.chunk import Chunk, History, Planner, continues, planned
from specpolicy.control.shared_frames import Layout, SharedFrames, check_layout, layout_of, new_memory, reserve
from specpolicy.control.worker import CLOSE_SECONDS, READY_SECONDS, Closed, inference_error, timed
from specpolicy.errors import SpecpolicyError
from specpolicy.processes import (
    GRACE_SECONDS,
    cause_of_death,
    check_main_guard,
    one_thread_each,
    start_process,
    start_worker,
)

LARGEST_ANSWER = 1 << 24  # bytes: the loop reads an answer beside its other work


class ProcessWorker:
    """Plans in another process, started by the first `reset`. The planner is pickled and sent there once.

    Observations go through shared memory, which holds the history of the current request until it is answered. Of those
    submitted meanwhile, the newest waits here. So `submit` and `result` never wait for the process, not even for a
    suspended one. All histories from one `reset` to the next have the same keys, shapes and dtypes.

    Times are comparable between the processes of a machine: `time.perf_counter` counts from the same moment.

    Args:
        planner: see `Planner`.
        threads: torch threads of the process; the default leaves the other cores to the control loop.
    """

    name = "process"

    def __init__(self, planner: Planner, threads: int = 1):
        if threads < 1:
            raise SpecpolicyError(f"threads={threads}: inference needs at least one thread")
        if not hasattr(socket, "send_fds"):
            raise SpecpolicyError("worker='process' needs Linux or macOS: use worker='thread'")
        check_main_guard()
        self.n_obs_steps, self.n_action_steps = planner.n_obs_steps, planner.n_action_steps
        self.pictures, self.continues = getattr(planner, "pictures", None), continues(planner)
        self._threads = threads
        try:
            self._planner = pickle.dumps(planner)
        except Exception as error:  # unpicklable objects raise many kinds of exceptions
            raise SpecpolicyError(
                f"this planner cannot be sent to a process ({type(error).__name__}: {error}): use worker='thread'"
            ) from error
        self._process: Any = None
        self._channel: Channel | None = None
        self._memory = -1
        self._frames: SharedFrames | None = None
        self._layout: Layout = ()
        self._number = 0  # of the newest reset or request: answers to older ones are dropped
        self._asked = self._ready = False
        self._waiting: tuple[int, History, Committed | None, float] | None = None

    def reset(self, seed: int) -> None:
        """See `Worker.reset`."""
        if self._channel is None:
            self._start()
        self._number += 1
        self._open.send(("reset", self._number, seed))
        deadline = time.perf_counter() + READY_SECONDS
        while (answer := self._receive(max(0.0, deadline - time.perf_counter()))) is not None:
            if answer[0] == self._number:
                break
        else:
            raise SpecpolicyError(f"the inference process was not ready within {READY_SECONDS:g} s")
        self._ready, self._asked, self._waiting, self._layout = True, False, None, ()
        _checked(answer)

    def submit(self, history: History, committed: Committed | None = None) -> None:
        """See `Worker.submit`."""
        arrays = {key: np.asarray(value) for key, value in history.items()}
        if self._layout:
            check_layout(arrays, self._layout)
        else:
            self._lay_out(arrays)
        self._number += 1
        if self._asked:
            copies = {key: np.array(value) for key, value in arrays.items()}
            self._waiting = self._number, copies, committed, time.perf_counter()
        else:
            self._ask(self._number, arrays, committed, time.perf_counter())

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """See `Worker.result`."""
        deadline = time.perf_counter() + seconds
        while (answer := self._receive(max(0.0, deadline - time.perf_counter()))) is not None:
            self._asked = False
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                self._ask(*waiting)
            if answer[0] == self._number:
                return _checked(answer)
        return None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        channel, process, memory = self._channel, self._process, self._memory
        if channel is None:
            return
        self._channel = self._process = self._frames = None
        self._memory, self._asked, self._ready = -1, False, False
        channel.close()  # it sees the end and leaves
        process.join(CLOSE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        os.close(memory)

    @property
    def _open(self) -> Channel:
        if (channel := self._channel) is None:
            raise Closed("inference has been closed")
        return channel

    def _start(self) -> None:
        with contextlib.ExitStack() as undone:
            ours, theirs = socket.socketpair()
            undone.callback(ours.close)
            memory = new_memory()
            undone.callback(os.close, memory)
            process = multiprocessing.get_context("spawn").Process(
                target=_work, args=(theirs, self._threads), name="inference", daemon=True
            )
            with theirs, one_thread_each() if self._threads == 1 else contextlib.nullcontext():
                start_process(process)
            socket.send_fds(ours, [b"m"], [memory])
            undone.pop_all()
        # Not before it runs: another thread may call `close` meanwhile.
        self._process, self._memory, self._channel = process, memory, Channel(ours)
        self._open.send_pickled(self._planner)

    def _lay_out(self, arrays: dict[str, np.ndarray]) -> None:
        layout = layout_of(arrays)
        reserve(self._memory, layout)
        self._frames, self._layout = SharedFrames(self._memory, layout), layout
        self._open.send(("layout", self._number, layout))

    def _ask(self, number: int, arrays: History, committed: Committed | None, submitted: float) -> None:
        channel, frames = self._open, self._frames
        assert frames is not None
        frames.write(arrays)
        channel.send(("plan", number, (committed, submitted)))
        self._asked = True

    def _receive(self, seconds: float) -> Any:
        """Return an answer: the number of its request, its kind and its value; None if there is none within
        `seconds`."""
        channel, process = self._open, self._process
        try:
            return channel.receive(seconds)
        except EOFError:
            if self._channel is not channel:
                raise Closed("inference has been closed") from None
            why = cause_of_death(process, 0.1)  # a short wait, because the robot has to be stopped
            when = "" if self._ready else " before it was ready: its own words may stand above"
            raise SpecpolicyError(f"the inference process has died ({why}){when}") from None


def _checked(answer: tuple[int, str, Any]) -> Any:
    """Return the value of an answer; raise if it is an error."""
    _, kind, value = answer
    if kind == "failed":
        line, trace = value
        raise SpecpolicyError(line) from RuntimeError(f"in the inference process:\n{trace}")
    return value


def _work(theirs: socket.socket, threads: int) -> None:
    """Run in the process: answer one message after the other until the other end is closed."""
    start_worker(GRACE_SECONDS)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for a torch that is imported later
    with contextlib.suppress(EOFError, ConnectionError):
        memories = socket.recv_fds(theirs, 1, 1)[1]
        channel = Channel(theirs)
        pickled = channel.receive_pickled(math.inf) or b""
        planner: Planner | None = None
        frames: SharedFrames | None = None
        while True:
            kind, number, value = channel.receive(math.inf)
            if kind == "layout":
                layout: Layout = value
                frames = SharedFrames(memories[0], layout)
                continue
            try:
                planner = planner or _made(pickled, threads)
                chunk = None
                if kind == "reset":
                    planner.reset(value)
                else:
                    assert frames is not None
                    committed, submitted = value
                    chunk = timed(planned(planner, frames.read(), committed), submitted)
                answer = pickle.dumps((number, "done", chunk), protocol=pickle.HIGHEST_PROTOCOL)
                if len(answer) > LARGEST_ANSWER:
                    size = f"{len(answer) / 2**20:.0f} MiB, of which {LARGEST_ANSWER / 2**20:.0f} are allowed"
                    raise SpecpolicyError(f"the planner's chunk takes {size}")
            except Exception as error:
                answer = pickle.dumps((number, "failed", (str(inference_error(error)), traceback.format_exc())))
            channel.send_pickled(answer)
            channel.drain()


def _made(pickled: bytes, threads: int) -> Any:
    """Return the planner of a pickle. Many need no torch, whose import takes seconds; where it came, it is limited."""
    try:
        planner = pickle.loads(pickled)
    except SpecpolicyError:  # it says itself what to do
        raise
    except Exception as error:
        raise SpecpolicyError(
            f"its process cannot make this planner ({type(error).__name__}: {error}): "
            "define it in a module, or use worker='thread'"
        ) from error
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    return planner
