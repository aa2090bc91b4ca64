"""Inference in a process of its own, which shares neither interpreter nor interpreter lock with the control loop."""

import contextlib
import multiprocessing
import pickle
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from specpolicy.control.chunk import Chunk, History, Planner
from specpolicy.control.worker import CLOSE_SECONDS, inference_error, timed
from specpolicy.errors import SpecpolicyError
from specpolicy.processes import one_thread_each, start_worker

READY_SECONDS = 120.0  # a process has to import torch and to move the weights to its device


class ProcessWorker:
    """Plans in another process, started by the first `reset`. The planner is pickled and sent there once.

    Times are comparable between the processes of a machine: `time.perf_counter` counts from the same moment.

    Args:
        planner: see `Planner`.
        threads: torch threads of the process; the default leaves the other cores to the control loop.
    """

    name = "process"

    def __init__(self, planner: Planner, threads: int = 1):
        if threads < 1:
            raise SpecpolicyError(f"threads={threads}: inference needs at least one thread")
        self.n_obs_steps, self.n_action_steps = planner.n_obs_steps, planner.n_action_steps
        self._threads = threads
        try:
            self._planner = pickle.dumps(planner)
        except Exception as error:  # what cannot be pickled shows in many ways
            raise SpecpolicyError(
                f"this planner cannot be sent to a process ({type(error).__name__}: {error}): use worker='thread'"
            ) from error
        self._process: Any = None
        self._connection: Connection | None = None

    def reset(self, seed: int) -> None:
        """See `Worker.reset`."""
        if self._connection is None:
            self._connection = self._start()
        self._send(("reset", seed))
        if not self._connection.poll(READY_SECONDS):
            raise SpecpolicyError(f"the inference process was not ready within {READY_SECONDS:g} s")
        self._receive()

    def submit(self, history: History) -> None:
        """See `Worker.submit`."""
        self._send(("plan", (history, time.perf_counter())))

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """See `Worker.result`."""
        assert self._connection is not None
        return self._receive() if self._connection.poll(seconds) else None

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._connection is None:
            return
        self._connection.close()  # it sees the end of the pipe and leaves
        self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._planner, self._threads), name="inference", daemon=True
        )
        with one_thread_each() if self._threads == 1 else contextlib.nullcontext():
            process.start()
        theirs.close()
        self._process = process  # not before it runs: `close` may be called from another thread meanwhile
        return ours

    def _send(self, message: tuple[str, Any]) -> None:
        assert self._connection is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: receiving from it says so
            self._connection.send(message)

    def _receive(self) -> Any:
        assert self._connection is not None
        try:
            kind, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(CLOSE_SECONDS)
            raise SpecpolicyError(
                f"the inference process has died (exit code {self._process.exitcode}; out of memory?)"
            ) from None
        if kind == "failed":
            line, trace = value
            raise SpecpolicyError(line) from RuntimeError(f"in the inference process:\n{trace}")
        return value


def _work(connection: Connection, pickled: bytes, threads: int) -> None:
    """The life of the process: answer one message after the other until the pipe is closed."""
    start_worker()
    import torch

    torch.set_num_threads(threads)
    planner: Planner | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            kind, value = connection.recv()
            try:
                planner = planner or pickle.loads(pickled)
                answer: tuple[str, Any] = ("done", None)
                if kind == "reset":
                    planner.reset(value)
                else:
                    history, submitted = value
                    answer = ("done", timed(planner.plan(history), submitted))
            except Exception as error:
                answer = ("failed", (str(inference_error(error)), traceback.format_exc()))
            connection.send(answer)
