"""Inference off the event loop: one thread takes waiting requests, several at a time."""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from specpolicy.committed import Committed
from specpolicy.control.checks import check_chunk
from specpolicy.control.chunk import Chunk, History
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.metrics import Metrics
from specpolicy.serving.service import Service
from specpolicy.serving.streams import rewinder

LOGGER = logging.getLogger("specpolicy.serving")


class InferenceEnded(SpecpolicyError):
    """The planning thread has ended; this process plans nothing any more."""


@dataclass(frozen=True)
class Planned:
    """A chunk, the seconds that its request waited, and the number of requests planned with it."""

    chunk: Chunk
    waited: float
    batch: int


@dataclass(eq=False)
class _Job:
    history: History
    stream: Any
    wanted: Callable[[], bool]
    future: "asyncio.Future[Planned]"
    loop: asyncio.AbstractEventLoop
    committed: Committed | None
    submitted: float = field(default_factory=time.perf_counter)


class Inference:
    """Plans chunks in a thread, in the order of the requests.

    Requests that wait at the same time become one batch, because a network evaluates eight rows in little more time
    than one. If a batch fails, its requests are planned again one by one, so only the faulty one fails. The random
    streams of all are set back first, so each draws the same numbers as alone.

    Exceptions that are not ordinary, such as SystemExit, and errors that leave a GPU unusable end the thread. All
    present and later requests then fail with `InferenceEnded`. The thread is not restarted, because its state is
    unknown; a new process begins with a clean one.

    Args:
        service: see `Service`.
        metrics: receives the figures.
        max_batch: most requests planned together.
    """

    def __init__(self, service: Service, metrics: Metrics, max_batch: int = 8):
        if max_batch < 1:
            raise SpecpolicyError(f"max_batch={max_batch}: expected at least one")
        self._service, self._metrics, self._most = service, metrics, max_batch
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: list[_Job] = []
        self._closed = False
        self._ended: InferenceEnded | None = None
        self._since: float | None = None
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def plan(
        self,
        history: History,
        stream: Any,
        wanted: Callable[[], bool] = lambda: True,
        committed: Committed | None = None,
    ) -> Planned:
        """Return the chunk for a history, given committed actions. `wanted` is called when its turn comes; False drops
        the request (a client has left).

        Raises:
            InferenceEnded: see above.
            SpecpolicyError: inference failed and explains why.
            asyncio.CancelledError: the request was dropped, or the server closes.
            Exception: any other error of the service.
        """
        loop = asyncio.get_running_loop()
        job = _Job(history, stream, wanted, loop.create_future(), loop, committed)
        with self._changed:
            if self._closed:
                raise asyncio.CancelledError
            if not self.alive:
                raise self._ended or InferenceEnded("inference has ended")
            self._waiting.append(job)
            self._metrics.queued(len(self._waiting))
            self._changed.notify()
        return await job.future

    @property
    def alive(self) -> bool:
        """Whether requests are planned. If the thread has ended unnoticed, this call answers the waiting requests."""
        if self._ended is None and not self._thread.is_alive():
            self._end(None)
        return self._ended is None

    def busy_seconds(self) -> float:
        """Seconds that inference has spent on the present batch; 0 without one."""
        since = self._since
        return 0.0 if since is None else time.perf_counter() - since

    def close(self) -> None:
        """Drop all requests and let the thread end. A hanging thread is left alone."""
        with self._changed:
            self._closed = True
            for job in [*self._running, *self._waiting]:
                _settle(job, asyncio.Future.cancel)
            self._waiting.clear()
            self._changed.notify()

    def _work(self) -> None:
        try:
            while jobs := self._next():
                self._plan(jobs)
        except BaseException as error:
            LOGGER.critical("inference has ended", exc_info=True)
            self._end(error)

    def _next(self) -> list[_Job]:
        """Return the requests whose turn it is; none if inference is closed."""
        with self._changed:
            self._running = []
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            self._running = self._alike()
            self._metrics.queued(len(self._waiting))
            return self._running

    def _alike(self) -> list[_Job]:
        """Take the oldest request and those after it that can be planned with it: a batch is continued in one way."""
        taken: list[_Job] = []
        left: deque[_Job] = deque()
        way: str | None = None
        for job in self._waiting:
            own = None if job.committed is None else job.committed.way
            if len(taken) < self._most and (own is None or way is None or own == way):
                taken.append(job)
                way = way or own
            else:
                left.append(job)
        self._waiting = left
        return taken

    def _plan(self, jobs: list[_Job]) -> None:
        wanted = [job for job in jobs if job.wanted()]
        for job in jobs:
            if job not in wanted:
                _settle(job, asyncio.Future.cancel)
        self._since = time.perf_counter()
        if wanted and not self._try(wanted) and len(wanted) > 1:
            for job in wanted:
                self._try([job])
        self._since = None

    def _end(self, error: BaseException | None) -> None:
        """Answer all requests: there will be no chunks."""
        with self._changed:
            if self._closed or self._ended is not None:
                return
            reason = f" ({type(error).__name__})" if error is not None else ""
            self._ended = InferenceEnded(f"inference has ended{reason} and this server with it: its log says more")
            self._since = None
            jobs = [*self._running, *self._waiting]
            self._waiting.clear()
            self._metrics.queued(0)
        for job in jobs:
            _settle(job, asyncio.Future.set_exception, self._ended)

    def _try(self, jobs: list[_Job]) -> bool:
        """Try to plan some requests together and answer them. A failure is an answer only to a single request."""
        start = time.perf_counter()
        rewind = rewinder([job.stream for job in jobs])
        try:
            committed = [job.committed for job in jobs]
            told = {"committed": committed} if any(one is not None for one in committed) else {}
            chunks = self._service.plan([job.history for job in jobs], [job.stream for job in jobs], **told)
            if len(chunks) != len(jobs):
                raise RuntimeError(f"{len(chunks)} chunks for {len(jobs)} requests")
            for chunk in chunks:
                check_chunk(chunk, None)
            self._metrics.planned(chunks, time.perf_counter() - start)
        except Exception as error:
            rewind()
            if _ruins_device(error):
                raise
            if len(jobs) == 1:
                if isinstance(error, StopIteration):  # futures cannot hold it
                    error = RuntimeError(f"StopIteration: {error}")
                _settle(jobs[0], asyncio.Future.set_exception, error)
            return False
        for job, chunk in zip(jobs, chunks, strict=True):
            _settle(job, asyncio.Future.set_result, Planned(chunk, start - job.submitted, len(jobs)))
        return True


def _ruins_device(error: Exception) -> bool:
    """Whether an error leaves the GPU unusable in this process; lack of memory does not."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, getattr(torch, "AcceleratorError", ())) or "CUDA error" in str(error)


def _settle(job: _Job, how: Callable[..., Any], *values: Any) -> None:
    """Answer a job from another thread, unless its connection or the server is gone."""

    def settle() -> None:
        if not job.future.done():
            how(job.future, *values)

    with contextlib.suppress(RuntimeError):  # the loop has been closed
        job.loop.call_soon_threadsafe(settle)
