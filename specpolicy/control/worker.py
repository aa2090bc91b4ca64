"""Where inference runs: in the loop itself, in a thread or in a process, behind one interface.

A worker has at most one history at a time. What goes wrong in it comes out of `result`, as one clear error.
"""

import dataclasses
import queue
import threading
import time
from typing import Any, Protocol

from specpolicy.control.chunk import Chunk, History, Planner
from specpolicy.errors import SpecpolicyError

WORKERS = ("process", "thread", "inline")
CLOSE_SECONDS = 1.0  # what a worker is given to finish what it does before it is left or killed


class Worker(Protocol):
    """Computes chunks, one after the other.

    Attributes:
        name: one of `WORKERS`, or a name of your own.
        n_obs_steps, n_action_steps: those of its planner.
    """

    name: str
    n_obs_steps: int
    n_action_steps: int

    def reset(self, seed: int) -> None:
        """Begin an episode (see `Planner.reset`). The first call makes the worker ready, which may take seconds."""

    def submit(self, history: History) -> None:
        """Ask for the chunk of a history; returns at once, unless the worker is the loop itself.

        It takes the place of one submitted before whose chunk has not been fetched.
        """

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """The chunk asked for last, None if it is not there within `seconds`. Its `seconds` count from `submit`.

        Raises:
            SpecpolicyError: the planner raised an exception, or the worker has died.
        """
        ...

    def close(self) -> None:
        """Release what the worker holds; it may be reset again afterwards."""


class InlineWorker:
    """Plans in `submit`, for simulated worlds, which stand still meanwhile. Exceptions come through as they are.

    A chunk's `seconds` are what the planner says.
    """

    name = "inline"

    def __init__(self, planner: Planner):
        self._planner = planner
        self.n_obs_steps, self.n_action_steps = planner.n_obs_steps, planner.n_action_steps
        self._chunk: Chunk | None = None

    def reset(self, seed: int) -> None:
        """See `Worker.reset`."""
        self._planner.reset(seed)
        self._chunk = None

    def submit(self, history: History) -> None:
        """Plan the chunk."""
        self._chunk = as_chunk(self._planner.plan(history))

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """The chunk, at once."""
        chunk, self._chunk = self._chunk, None
        return chunk

    def close(self) -> None:
        """Nothing to release."""


class ThreadWorker:
    """Plans in a thread of this process. Nothing is copied, but Python lets only one of its threads run at a time."""

    name = "thread"

    def __init__(self, planner: Planner):
        self._planner = planner
        self.n_obs_steps, self.n_action_steps = planner.n_obs_steps, planner.n_action_steps
        self._thread: threading.Thread | None = None
        self._number = 0  # of the newest request

    def reset(self, seed: int) -> None:
        """See `Worker.reset`."""
        if self._thread is None:
            self._requests: queue.SimpleQueue[tuple[int, History, float] | None] = queue.SimpleQueue()
            self._answers: queue.SimpleQueue[tuple[int, Chunk | BaseException]] = queue.SimpleQueue()
            # A daemon: one that hangs must not keep the program from ending.
            self._thread = threading.Thread(
                target=self._work, args=(self._requests, self._answers), name="inference", daemon=True
            )
            self._thread.start()
        self._number += 1  # what was asked for before is of no use any more
        self._planner.reset(seed)

    def submit(self, history: History) -> None:
        """See `Worker.submit`."""
        self._number += 1
        self._requests.put((self._number, history, time.perf_counter()))

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """See `Worker.result`."""
        deadline = time.perf_counter() + seconds
        while True:
            try:
                number, answer = self._answers.get(timeout=max(0.0, deadline - time.perf_counter()))
            except queue.Empty:
                return None
            if number != self._number:
                continue
            if isinstance(answer, BaseException):
                raise inference_error(answer) from answer
            return answer

    def close(self) -> None:
        """Let the thread end; one that hangs is left to itself."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join(CLOSE_SECONDS)
            self._thread = None

    def _work(
        self,
        requests: "queue.SimpleQueue[tuple[int, History, float] | None]",
        answers: "queue.SimpleQueue[tuple[int, Chunk | BaseException]]",
    ) -> None:
        while (request := requests.get()) is not None:
            number, history, submitted = request
            if number != self._number:  # a newer one is there, or will be
                continue
            try:
                answers.put((number, timed(self._planner.plan(history), submitted)))
            except BaseException as error:  # sys.exit() of a planner, too, would leave the loop without an answer
                answers.put((number, error))


def timed(planned: Any, submitted: float) -> Chunk:
    """What a planner returned with the time since `submitted` (of `time.perf_counter`)."""
    return dataclasses.replace(as_chunk(planned), seconds=time.perf_counter() - submitted)


def as_chunk(planned: Any) -> Chunk:
    """What a planner returned, if it is a chunk."""
    if not isinstance(planned, Chunk):
        raise SpecpolicyError(f"a planner must return a Chunk, got {type(planned).__name__}")
    return planned


def inference_error(error: BaseException) -> SpecpolicyError:
    """One line for an exception of a planner."""
    if isinstance(error, SpecpolicyError):
        return SpecpolicyError(f"inference failed: {error}")
    return SpecpolicyError(f"inference failed: {type(error).__name__}: {error}")
