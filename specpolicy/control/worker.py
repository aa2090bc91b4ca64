"""Inference in the loop itself, in a thread or in a process, behind one interface.

A worker has at most one history at a time. Its errors come out of `result`, as one clear error.
"""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from specpolicy.committed import Committed
from specpolicy.control.chunk import Chunk, History, Planner, continues, planned
from specpolicy.errors import SpecpolicyError, error_text

WORKERS = ("process", "thread", "inline")
READY_SECONDS = 120.0  # a process has to import torch and to move the weights to its device
CLOSE_SECONDS = 1.0  # time for a worker to finish before it is left or killed


class Closed(SpecpolicyError):
    """The worker has been closed, perhaps by another thread than the waiting one."""


class Worker(Protocol):
    """Computes chunks, one after the other.

    Attributes:
        name: one of `WORKERS`, or a name of your own.
        n_obs_steps, n_action_steps: those of its planner.
        pictures: the same, if it has them; see `Planner`.
        continues: whether its planner takes committed actions; may be missing.
    """

    name: str
    n_obs_steps: int
    n_action_steps: int

    def reset(self, seed: int) -> None:
        """Begin an episode (see `Planner.reset`). The first call makes the worker ready, which may take seconds."""

    def submit(self, history: History, committed: Committed | None = None) -> None:
        """Request the chunk of a history; returns at once, unless the worker is the loop itself.

        It replaces an earlier request whose chunk has not been fetched.
        """

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """Return the requested chunk, None if it is not ready within `seconds`. Its `seconds` count from `submit`.

        Raises:
            SpecpolicyError: the planner raised an exception, or the worker has died.
            Closed: it was closed meanwhile.
        """
        ...

    def close(self) -> None:
        """Release the worker's resources; it may be reset again afterwards. For any thread."""


class InlineWorker:
    """Plans in `submit`, for simulated worlds, which stand still meanwhile. Exceptions pass through unchanged.

    A chunk's `seconds` are those that the planner reports.
    """

    name = "inline"

    def __init__(self, planner: Planner):
        self._planner = planner
        self.n_obs_steps, self.n_action_steps = planner.n_obs_steps, planner.n_action_steps
        self.pictures, self.continues = getattr(planner, "pictures", None), continues(planner)
        self._chunk: Chunk | None = None

    def reset(self, seed: int) -> None:
        """See `Worker.reset`."""
        self._planner.reset(seed)
        self._chunk = None

    def submit(self, history: History, committed: Committed | None = None) -> None:
        """Plan the chunk."""
        self._chunk = as_chunk(planned(self._planner, history, committed))

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """Return the chunk, at once."""
        chunk, self._chunk = self._chunk, None
        return chunk

    def close(self) -> None:
        """Do nothing."""


class ThreadWorker:
    """Plans in a thread of this process. Python lets only one of its threads run at a time.

    Requests to the planner run one after the other. So a plan that continues after the end of a run, or into a new one,
    draws nothing from the new run's random numbers.
    """

    name = "thread"

    def __init__(self, planner: Planner):
        self._planner = planner
        self.n_obs_steps, self.n_action_steps = planner.n_obs_steps, planner.n_action_steps
        self.pictures, self.continues = getattr(planner, "pictures", None), continues(planner)
        self._alone = threading.Lock()  # held while the planner works
        self._thread: threading.Thread | None = None
        self._requests: queue.SimpleQueue[tuple[int, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._number = 0  # of the newest request

    def reset(self, seed: int) -> None:
        """See `Worker.reset`."""
        if self._thread is None:
            self._requests, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
            # A daemon: a hanging thread must not keep the program from ending.
            self._thread = threading.Thread(
                target=self._work, args=(self._requests, self._answers), name="inference", daemon=True
            )
            self._thread.start()

        def begin() -> bool:
            self._planner.reset(seed)
            return True

        self._ask(begin)
        if self._answer(READY_SECONDS) is None:
            raise SpecpolicyError(f"inference is not ready after {READY_SECONDS:g} s: is it at an earlier plan?")

    def submit(self, history: History, committed: Committed | None = None) -> None:
        """See `Worker.submit`."""
        submitted = time.perf_counter()
        self._ask(lambda: timed(planned(self._planner, history, committed), submitted))

    def result(self, seconds: float = 0.0) -> Chunk | None:
        """See `Worker.result`."""
        chunk: Chunk | None = self._answer(seconds)
        return chunk

    def close(self) -> None:
        """Let the thread end; a hanging one is left alone."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._number += 1  # earlier requests are void
            self._requests.put(None)
            self._answers.put((0, Closed("inference has been closed")))
            thread.join(CLOSE_SECONDS)

    def _ask(self, job: Callable[[], Any]) -> None:
        self._number += 1
        self._requests.put((self._number, job))

    def _answer(self, seconds: float) -> Any:
        """Return the result of the latest job; None if it is not ready within `seconds`."""
        deadline = time.perf_counter() + seconds
        while True:
            try:
                number, answer = self._answers.get(timeout=max(0.0, deadline - time.perf_counter()))
            except queue.Empty:
                return None
            if isinstance(answer, Closed):
                raise answer
            if number != self._number:
                continue
            if isinstance(answer, BaseException):
                raise inference_error(answer) from answer
            return answer

    def _work(
        self,
        requests: "queue.SimpleQueue[tuple[int, Callable[[], Any]] | None]",
        answers: "queue.SimpleQueue[tuple[int, Any]]",
    ) -> None:
        while (request := requests.get()) is not None:
            number, job = request
            with self._alone:
                if number != self._number:  # a newer request is or will be there
                    continue
                try:
                    answers.put((number, job()))
                except BaseException as error:  # sys.exit() of a planner, too, would leave the loop without an answer
                    answers.put((number, error))


def timed(found: Any, submitted: float) -> Chunk:
    """Return the planner's result, with the time since `submitted` (of `time.perf_counter`)."""
    return dataclasses.replace(as_chunk(found), seconds=time.perf_counter() - submitted)


def as_chunk(found: Any) -> Chunk:
    """Return the planner's result, if it is a chunk; its actions are copied."""
    if not isinstance(found, Chunk):
        raise SpecpolicyError(f"a planner must return a Chunk, got {type(found).__name__}")
    return dataclasses.replace(found, actions=np.array(found.actions))


def inference_error(error: BaseException) -> SpecpolicyError:
    """Return a one-line error for an exception of a planner."""
    return SpecpolicyError(f"inference failed: {error_text(error, named=not isinstance(error, SpecpolicyError))}")
