"""`auto`: the fastest engine that is installed, runs on this machine and computes the same as the network."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from specpolicy.engines.base import Engine, Workload
from specpolicy.engines.memory import recall, remember
from specpolicy.tuning import time_calls

ROWS = (1, 16)  # of a sequential sampler's calls, and of an exact sampler's
TURNS, SECONDS = 100, 0.6  # most repetitions of both calls, and their time limit
CALLS = 5  # calls of each of `ROWS` that are counted for a chunk, whose observation is encoded once


@dataclass(frozen=True)
class Beside:
    """What a chunk takes on an engine besides the calls of its network: the encoding of its observation.

    Attributes:
        about: tells encoders that take other times apart.
        seconds: measures it on the engine of a name.
    """

    about: str
    seconds: Callable[[str], float]


def automatic_engine(kinds: Sequence[type[Engine]], workload: Workload, beside: Beside | None = None) -> Engine:
    """The engine that `fastest_engine` finds, or found before for such a workload on this machine.

    A remembered engine is compared with the network like any other. If it cannot be made any more, all are measured.
    """
    about = None if beside is None else beside.about
    choice = recall(workload, about)
    for kind in kinds:
        if choice is not None and kind.name == choice.name:
            try:
                engine = kind(workload)
                engine.warm_up()
            except Exception:  # whatever a package or a driver finds that it cannot do by now
                break
            engine.considered = choice.considered
            return engine
    engine = fastest_engine(kinds, workload, beside)
    remember(workload, engine, about)
    return engine


def fastest_engine(kinds: Iterable[type[Engine]], workload: Workload, beside: Beside | None = None) -> Engine:
    """Return the engine with the least time for a chunk, measured now: for `CALLS` calls of one row, as many of sixteen
    and what is to be done beside them.

    The last of `kinds` is used if no other works: its errors are raised. The engine's `considered` holds the findings
    about each kind.
    """
    *offered, last = kinds
    found, considered = list[tuple[float, Engine]](), dict[str, str]()
    for kind in offered:
        try:
            found.append(_try(kind, workload, beside, considered))
        except Exception as error:  # packages and drivers raise many kinds of errors
            considered[kind.name] = " ".join(str(error).split()) or type(error).__name__
    found.append(_try(last, workload, beside, considered))
    _, best = min(found, key=lambda one: one[0])
    best.considered = considered
    return best


def _try(
    kind: type[Engine], workload: Workload, beside: Beside | None, considered: dict[str, str]
) -> tuple[float, Engine]:
    """Return the seconds of a chunk, and the engine."""
    engine = kind(workload)
    engine.warm_up()
    seconds = time_engine(engine, sorted({min(rows, workload.max_rows) for rows in ROWS}))
    parts = [f"{1e3 * taken:.3g} ms for {rows} row{'s' if rows > 1 else ''}" for rows, taken in seconds.items()]
    more = 0.0
    if beside is not None:
        more = beside.seconds(kind.name)
        parts.append(f"{1e3 * more:.3g} ms to encode")
    considered[kind.name] = ", ".join(parts)
    return CALLS * sum(seconds.values()) + more, engine


@torch.inference_mode()
def time_engine(engine: Engine, sizes: Iterable[int]) -> dict[int, float]:
    """Return the seconds of a call, by number of rows."""
    calls = {rows: functools.partial(engine, *engine.workload.example(rows)) for rows in sizes}
    return time_calls(calls, engine.device, TURNS, SECONDS)
