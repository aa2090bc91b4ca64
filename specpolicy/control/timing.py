"""Wall-clock record of a control loop: one entry per chunk and per control step, and their summary."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from specpolicy.control.ticks import Ticks


@dataclass
class ChunkTiming:
    """Times of one request for a chunk.

    Attributes:
        step: control step of its newest observation.
        due: control step at which it was due.
        seconds, network_seconds, encode_seconds, calls, rows: its cost; `seconds` is None until it arrives.
        missed: it was not there when due.
        late_steps: control periods from then until it was in use; None if it never was.
        expired: it came after the last step that it has an action for.
    """

    step: int
    due: int
    seconds: float | None = None
    network_seconds: float = 0.0
    calls: int = 0
    rows: int = 0
    missed: bool = False
    late_steps: int | None = None
    expired: bool = False
    encode_seconds: float = 0.0


@dataclass(frozen=True)
class RunEnd:
    """End of a run on a robot.

    Attributes:
        cause: reason of the end: "the time was over", "until()", the name of a signal, the line of an error.
        stop_after: seconds from that (for a hanging call: from the end of its time) until the robot's `stop` was
            called.
        stop_seconds: duration of that call; None if it has not returned.
    """

    cause: str
    stop_after: float
    stop_seconds: float | None


@dataclass
class TimingLog:
    """The record of one run, without warm-up calls.

    Attributes:
        hz: intended control steps per second.
        clock, worker: their names.
        warm_up: number of earlier calls that are left out.
        lead: control steps from an observation to the step at which its chunk is due.
        end: how the run ended; None before that, and for worlds without a robot.
    """

    hz: float
    clock: str = ""
    worker: str = ""
    warm_up: int = 0
    lead: int = 0
    chunks: list[ChunkTiming] = field(default_factory=list)
    ticks: Ticks = field(default_factory=Ticks)
    end: RunEnd | None = None

    @property
    def starved_ticks(self) -> int:
        """Control steps whose action no chunk had planned, so the robot held its last one."""
        return sum(tick.chunk is None for tick in self.ticks)

    @property
    def misses(self) -> int:
        """Chunks that were not there when due."""
        return sum(chunk.missed for chunk in self.chunks)

    @property
    def boundary_jumps(self) -> list[float]:
        """Length of the change of action at each switch from one chunk to the next. Where an action was held between
        the two, the change is from that to the first one of the new chunk."""
        planned = (tick for tick in self.ticks if tick.chunk is not None)
        return [
            tick.jump
            for before, tick in itertools.pairwise(planned)
            if tick.jump is not None and before.chunk != tick.chunk
        ]

    def summary(self) -> dict[str, Any]:
        """Return the timing report in plain values, ready for JSON; times in seconds, None where nothing was
        measured."""
        computed = [chunk for chunk in self.chunks if chunk.seconds is not None]
        seconds = [chunk.seconds for chunk in computed if chunk.seconds is not None]
        total, period = sum(seconds), 1.0 / self.hz
        late = [chunk.late_steps * period for chunk in self.chunks if chunk.missed and chunk.late_steps is not None]
        steps = np.array([tick.step for tick in self.ticks])
        times = np.array([tick.seconds for tick in self.ticks])
        duration = float(times[-1] - times[0]) if len(times) > 1 else 0.0
        return {
            "clock": self.clock,
            "worker": self.worker,
            "hz": self.hz,
            "lead": self.lead,
            "warm_up": self.warm_up,
            "chunks": len(computed),
            "latency": quantiles(seconds),
            "calls": mean([chunk.calls for chunk in computed]),
            "rows": mean([chunk.rows for chunk in computed]),
            "network_share": sum(chunk.network_seconds for chunk in computed) / total if total else None,
            "encode_share": sum(chunk.encode_seconds for chunk in computed) / total if total else None,
            "misses": self.misses,
            "miss_rate": self.misses / len(self.chunks) if self.chunks else None,
            "longest_run_of_misses": longest_run([chunk.missed for chunk in self.chunks]),
            "lateness": quantiles(late),
            "expired_chunks": sum(chunk.expired for chunk in self.chunks),
            "ticks": len(self.ticks),
            "seconds": duration,
            "achieved_hz": (len(times) - 1) / duration if duration > 0 else None,
            # Deviation of each interval between two ticks from its periods.
            "jitter": spread(np.diff(times) - np.diff(steps) * period),
            # Delay of each tick from its scheduled moment.
            "tick_lateness": quantiles(times - steps * period),
            "missed_periods": int(steps[-1] - steps[0] + 1 - len(steps)) if len(steps) else 0,
            "observation_age": quantiles([tick.age for tick in self.ticks if tick.age is not None]),
            "starved_ticks": self.starved_ticks,
            "limited_actions": sum(tick.limited for tick in self.ticks),
            "boundary_jump": quantiles(self.boundary_jumps),
            "end": None if self.end is None else asdict(self.end),
        }


def quantiles(values: Sequence[float] | np.ndarray) -> dict[str, float] | None:
    """Return mean, p50, p95, p99 and max; None without values."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return None
    p50, p95, p99 = map(float, np.quantile(array, [0.5, 0.95, 0.99]))
    return {"mean": float(array.mean()), "p50": p50, "p95": p95, "p99": p99, "max": float(array.max())}


def spread(deviations: np.ndarray) -> dict[str, float] | None:
    """Return the standard deviation, and the quantiles of the absolute deviations."""
    found = quantiles(np.abs(deviations))
    return None if found is None else {"std": float(np.std(deviations)), **found}


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None without values."""
    return float(np.mean(values)) if len(values) else None


def longest_run(flags: Sequence[bool]) -> int:
    """Return the length of the longest run of true values."""
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
