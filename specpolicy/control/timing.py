"""Wall-clock record of a control loop: one entry per chunk and per control step, and their summary."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from specpolicy.control.chunk_times import ChunkTimes, ChunkTiming
from specpolicy.control.ticks import Ticks

__all__ = ["ChunkTiming", "RunEnd", "TimingLog", "longest_run", "mean", "quantiles", "spread"]


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
        reached: control steps that were over when it ended; those without a tick are missed periods. What lies before
            the last tick counts in any case.
    """

    hz: float
    clock: str = ""
    worker: str = ""
    warm_up: int = 0
    lead: int = 0
    chunks: ChunkTimes = field(default_factory=ChunkTimes)
    ticks: Ticks = field(default_factory=Ticks)
    end: RunEnd | None = None
    reached: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.chunks, ChunkTimes):  # a list of finished ones
            self.chunks = ChunkTimes(self.chunks)

    @property
    def starved_ticks(self) -> int:
        """Control steps whose action no chunk had planned, so the robot held its last one."""
        return int((self.ticks.columns()["chunk"] < 0).sum())

    @property
    def misses(self) -> int:
        """Chunks that were not there when due."""
        return int(self.chunks.columns()["missed"].sum())

    @property
    def boundary_jumps(self) -> list[float]:
        """Length of the change of action at each switch from one chunk to the next. Where an action was held between
        the two, the change is from that to the first one of the new chunk."""
        return _boundary_jumps(self.ticks.columns()).tolist()

    def summary(self) -> dict[str, Any]:
        """Return the timing report in plain values, ready for JSON; times in seconds, None where nothing was
        measured."""
        chunks, ticks, period = self.chunks.columns(), self.ticks.columns(), 1.0 / self.hz
        computed = {name: column[~np.isnan(chunks["seconds"])] for name, column in chunks.items()}
        total = float(computed["seconds"].sum())
        missed, misses = chunks["missed"], int(chunks["missed"].sum())
        late = chunks["late_steps"][missed & (chunks["late_steps"] >= 0)] * period
        steps, times = ticks["step"], ticks["seconds"]
        duration = float(times[-1] - times[0]) if len(times) > 1 else 0.0
        reached = max(self.reached, int(steps[-1]) + 1 if len(steps) else 0)
        return {
            "clock": self.clock,
            "worker": self.worker,
            "hz": self.hz,
            "lead": self.lead,
            "warm_up": self.warm_up,
            "chunks": len(computed["seconds"]),
            "latency": quantiles(computed["seconds"]),
            "calls": mean(computed["calls"]),
            "rows": mean(computed["rows"]),
            "network_share": float(computed["network_seconds"].sum()) / total if total else None,
            "encode_share": float(computed["encode_seconds"].sum()) / total if total else None,
            "misses": misses,
            "miss_rate": misses / len(missed) if len(missed) else None,
            "longest_run_of_misses": longest_run(missed.tolist()),
            "lateness": quantiles(late),
            "expired_chunks": int(chunks["expired"].sum()),
            "ticks": len(steps),
            "seconds": duration,
            "achieved_hz": (len(times) - 1) / duration if duration > 0 else None,
            # Deviation of each interval between two ticks from its periods.
            "jitter": spread(np.diff(times) - np.diff(steps) * period),
            # Delay of each tick from its scheduled moment.
            "tick_lateness": quantiles(times - steps * period),
            "missed_periods": reached - len(steps),
            "observation_age": quantiles(ticks["age"][~np.isnan(ticks["age"])]),
            "starved_ticks": int((ticks["chunk"] < 0).sum()),
            "limited_actions": int(ticks["limited"].sum()),
            "boundary_jump": quantiles(_boundary_jumps(ticks)),
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


def mean(values: Sequence[float] | np.ndarray) -> float | None:
    """Return the mean; None without values."""
    return float(np.mean(values)) if len(values) else None


def longest_run(flags: Sequence[bool]) -> int:
    """Return the length of the longest run of true values."""
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


def _boundary_jumps(ticks: dict[str, np.ndarray]) -> np.ndarray:
    """Return `TimingLog.boundary_jumps` of the columns of `Ticks`."""
    planned = ticks["chunk"] >= 0
    chunk, jump = ticks["chunk"][planned], ticks["jump"][planned]
    found = jump[1:][chunk[1:] != chunk[:-1]]
    return found[~np.isnan(found)]
