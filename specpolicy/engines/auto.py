"""`auto`: the fastest engine of those that are installed, run here and compute what the network computes."""

import functools
from collections.abc import Iterable

import torch

from specpolicy.engines.base import Engine, Workload
from specpolicy.tuning import time_calls

ROWS = (1, 16)  # of a sequential sampler's calls, and of an exact one's
TURNS, SECONDS = 100, 0.6  # the most turns of both calls, and what they may take


def fastest_engine(kinds: Iterable[type[Engine]], workload: Workload) -> Engine:
    """The engine that takes the least time for a call of one row and one of sixteen, measured here and now.

    The last of `kinds` is what is left if no other can be made: its errors are raised. What was found out about each
    is in the engine's `considered`.
    """
    *offered, last = kinds
    found, considered = list[tuple[float, Engine]](), dict[str, str]()
    for kind in offered:
        try:
            found.append(_try(kind, workload, considered))
        except Exception as error:  # whatever a package or a driver finds that it cannot do
            considered[kind.name] = " ".join(str(error).split()) or type(error).__name__
    found.append(_try(last, workload, considered))
    _, best = min(found, key=lambda one: one[0])
    best.considered = considered
    return best


def _try(kind: type[Engine], workload: Workload, considered: dict[str, str]) -> tuple[float, Engine]:
    """Seconds of both calls, and the engine."""
    engine = kind(workload)
    engine.warm_up()
    seconds = time_engine(engine, sorted({min(rows, workload.max_rows) for rows in ROWS}))
    parts = [f"{1e3 * taken:.3g} ms for {rows} row{'s' if rows > 1 else ''}" for rows, taken in seconds.items()]
    considered[kind.name] = ", ".join(parts)
    return sum(seconds.values()), engine


@torch.inference_mode()
def time_engine(engine: Engine, sizes: Iterable[int]) -> dict[int, float]:
    """Seconds of a call by its number of rows."""
    calls = {rows: functools.partial(engine, *engine.workload.example(rows)) for rows in sizes}
    return time_calls(calls, engine.device, TURNS, SECONDS)
