"""Chunks that are planned and discarded before a run: the first of each kind pay for all that is slow at first."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from specpolicy.committed import Committed
from specpolicy.control.chunk import Chunk, history_of
from specpolicy.control.clock import Clock
from specpolicy.control.execution import Execution
from specpolicy.control.worker import READY_SECONDS, Worker
from specpolicy.errors import SpecpolicyError


def warm_up(
    worker: Worker,
    frame: Mapping[str, np.ndarray],
    calls: int,
    execution: Execution,
    clock: Clock,
    begins: Callable[[], object] = lambda: None,
    check: Callable[[], object] = lambda: None,
) -> float:
    """Plan chunks as the run will ask for them; return the seconds of the slowest, the first of each kind left out.

    Args:
        worker: already reset, and to be reset again afterwards.
        frame: an observation, which stands for the whole history.
        calls: number of chunks.
        execution: if it continues chunks, all but the first are continued; perhaps by one more, which continues as many
            actions as the run.
        clock: says how many actions a chunk is late.
        begins: called before each chunk.
        check: called ten times a second while a chunk is awaited.

    Raises:
        SpecpolicyError: inference fails or does not answer.
    """
    slowest, committed = 0.0, None
    for number in range(calls):
        chunk = _plan(worker, frame, committed, begins, check)
        if number >= min(1 + execution.continues, calls - 1):
            slowest = max(slowest, chunk.seconds)
        if execution.continues and committed is None:
            committed = _committed(chunk, execution, clock, chunk.seconds)
    if committed is not None and calls > 1:
        # The first chunk, a slow one, made it longer than in the run, and `linear` has a matrix for each length.
        as_in_run = _committed(chunk, execution, clock, slowest)
        if as_in_run.count != committed.count:
            _plan(worker, frame, as_in_run, begins, check)
    return slowest


def _committed(chunk: Chunk, execution: Execution, clock: Clock, seconds: float) -> Committed:
    """Return the actions of a chunk that are executed while the next one takes so many seconds."""
    lead = execution.lead or clock.delay_steps(seconds)
    return Committed(chunk.actions, min(max(1, lead), len(chunk.actions)), execution.stitching)


def _plan(
    worker: Worker,
    frame: Mapping[str, np.ndarray],
    committed: Committed | None,
    begins: Callable[[], object],
    check: Callable[[], object],
) -> Chunk:
    begins()
    history = history_of([frame] * worker.n_obs_steps, getattr(worker, "pictures", None))
    if committed is None:
        worker.submit(history)
    else:
        worker.submit(history, committed)
    start = time.perf_counter()
    while (chunk := worker.result(0.1)) is None:
        check()
        if time.perf_counter() - start > READY_SECONDS:
            raise SpecpolicyError(f"inference has not answered for {READY_SECONDS:g} s")
    return chunk
