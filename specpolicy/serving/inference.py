"""Inference off the event loop: one thread that takes up the requests that wait, several at a time."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from specpolicy.control.checks import check_chunk
from specpolicy.control.chunk import Chunk, History
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.metrics import Metrics
from specpolicy.serving.service import Service


@dataclass(frozen=True)
class Planned:
    """A chunk, the seconds that the request waited for its turn, and how many requests were planned with it."""

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
    submitted: float = field(default_factory=time.perf_counter)


class Inference:
    """Plans chunks in a thread, in the order of the requests.

    Requests that wait at the same time become one batch: a network evaluates eight rows in little more time than one.
    A batch that fails is planned again one by one, so that nobody suffers from what another has sent.

    Args:
        service: see `Service`.
        metrics: where the figures go.
        max_batch: requests planned together at most.
    """

    def __init__(self, service: Service, metrics: Metrics, max_batch: int = 8):
        if max_batch < 1:
            raise SpecpolicyError(f"max_batch={max_batch}: expected at least one")
        self._service, self._metrics, self._most = service, metrics, max_batch
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: list[_Job] = []
        self._closed = False
        self._since: float | None = None
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def plan(self, history: History, stream: Any, wanted: Callable[[], bool] = lambda: True) -> Planned:
        """The chunk for a history. wanted: asked when its turn comes; False drops the request (a client has left).

        Raises:
            SpecpolicyError: inference failed in a way that it explains.
            asyncio.CancelledError: the request was dropped, or the server closes.
            Exception: whatever else the service raises.
        """
        loop = asyncio.get_running_loop()
        job = _Job(history, stream, wanted, loop.create_future(), loop)
        with self._changed:
            if self._closed:
                raise asyncio.CancelledError
            self._waiting.append(job)
            self._metrics.queued(len(self._waiting))
            self._changed.notify()
        return await job.future

    def busy_seconds(self) -> float:
        """For how long inference has been at the same batch; 0 if it is at none."""
        since = self._since
        return 0.0 if since is None else time.perf_counter() - since

    def close(self) -> None:
        """Drop all requests and let the thread end. One that hangs is left to itself."""
        with self._changed:
            self._closed = True
            for job in [*self._running, *self._waiting]:
                _settle(job, asyncio.Future.cancel)
            self._waiting.clear()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                jobs = self._running = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                self._metrics.queued(len(self._waiting))
            wanted = [job for job in jobs if job.wanted()]
            for job in jobs:
                if job not in wanted:
                    _settle(job, asyncio.Future.cancel)
            self._since = time.perf_counter()
            if wanted and not self._try(wanted) and len(wanted) > 1:
                for job in wanted:
                    self._try([job])
            self._since = None

    def _try(self, jobs: list[_Job]) -> bool:
        """Plan some requests together and answer them. A failure is an answer only to one that is alone."""
        start = time.perf_counter()
        try:
            chunks = self._service.plan([job.history for job in jobs], [job.stream for job in jobs])
            if len(chunks) != len(jobs):
                raise RuntimeError(f"{len(chunks)} chunks for {len(jobs)} requests")
            for chunk in chunks:
                check_chunk(chunk, None)
        except Exception as error:
            if len(jobs) == 1:
                _settle(jobs[0], asyncio.Future.set_exception, error)
            return False
        self._metrics.planned(chunks, time.perf_counter() - start)
        for job, chunk in zip(jobs, chunks, strict=True):
            _settle(job, asyncio.Future.set_result, Planned(chunk, start - job.submitted, len(jobs)))
        return True


def _settle(job: _Job, how: Callable[..., Any], *values: Any) -> None:
    """Answer a job from another thread, unless its connection or the server is gone."""

    def settle() -> None:
        if not job.future.done():
            how(job.future, *values)

    with contextlib.suppress(RuntimeError):  # the loop has been closed
        job.loop.call_soon_threadsafe(settle)
