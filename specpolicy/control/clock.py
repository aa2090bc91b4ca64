"""Clocks: how the time of inference counts in the world.

A control loop asks its clock two things: when the next control step may be taken, and from which control step on a
chunk can be used. Four clocks answer differently:

| clock | the next step | a chunk asked for at step t, computed in s seconds, is usable from |
|---|---|---|
| `paused` | at once | t: the world waits for inference (classic evaluation) |
| `delay` | at once | t + d for a given d, or t + ceil(s * hz) with s from a recorded trace (reproducible) |
| `charged` | at once | t + ceil(s * hz): the world moves on by the measured time of every single call |
| `wall` | when its moment has come | the step that is on when the chunk arrives (real robots) |

In the first three the world is simulated: it takes a step whenever it is told to, and waits in between.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from specpolicy.errors import SpecpolicyError

CLOCKS = ("wall", "paused", "delay", "charged")


class Clock(Protocol):
    """Relates control steps to the time of inference.

    Attributes:
        name: one of `CLOCKS`, or a name of your own.
        simulated: whether the world stands still between two control steps, so that inference may run there.
    """

    name: str
    simulated: bool

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: control step 0 is now. `seed` decides everything random about the clock."""

    def wait_until(self, step: int) -> int:
        """Wait until the world may take control step `step`, or a later one if that was missed; return its number."""
        ...

    def usable_step(self, step: int, seconds: float) -> int:
        """Return the first control step that can use a chunk for the observation of `step` that took `seconds` to
        compute.

        Called once for each chunk, when its time is known.
        """
        ...

    def delay_steps(self, seconds: float) -> int:
        """Return the expected lag of a chunk behind its observation, in control steps, if it takes `seconds`."""
        ...


class SimulatedClock:
    """Base of the clocks of simulated worlds: a control step may be taken at once."""

    name: str
    simulated = True

    def reset(self, seed: int = 0) -> None:
        """Do nothing."""

    def wait_until(self, step: int) -> int:
        """Return `step` without waiting."""
        return step


class PausedClock(SimulatedClock):
    """The world waits while the policy computes, so inference costs no simulated time."""

    name = "paused"

    def usable_step(self, step: int, seconds: float) -> int:
        """Return the step of the observation itself, however long the chunk took."""
        return step

    def delay_steps(self, seconds: float) -> int:
        """Return 0."""
        return 0


class DelayClock(SimulatedClock):
    """Inference takes a given number of control steps, or the times of a recorded trace: reproducible to the bit.

    Args:
        steps: control steps that each chunk takes.
        trace: seconds of recorded calls, one after the other and round again, in place of `steps`. An episode
            begins at an entry that its seed decides. Needs `hz`, the control steps per second.
        scale: factor on the times of the trace: 0.5 stands for a machine twice as fast.
    """

    name = "delay"

    def __init__(
        self, steps: int = 0, trace: Sequence[float] | np.ndarray | None = None, hz: float = 0.0, scale: float = 1.0
    ):
        if steps < 0 or int(steps) != steps:
            raise SpecpolicyError(f"a delay of {steps} control steps: expected a whole number, 0 or more")
        self.steps = int(steps)
        self._trace = None if trace is None else np.asarray(trace, dtype=np.float64)
        if self._trace is not None:
            _check_rate(hz, scale)
            if self._trace.ndim != 1 or not len(self._trace) or not (self._trace >= 0).all():
                raise SpecpolicyError("a latency trace is a list of at least one time in seconds, none below zero")
        self._hz, self._scale = hz, scale
        self._next = 0

    def reset(self, seed: int = 0) -> None:
        """Go to the trace's entry for the seed."""
        if self._trace is not None:
            self._next = int(np.random.default_rng(seed).integers(len(self._trace)))

    def usable_step(self, step: int, seconds: float) -> int:
        """Return `step` plus the delay; with a trace each call takes its next entry."""
        if self._trace is None:
            return step + self.steps
        seconds = float(self._trace[self._next % len(self._trace)])
        self._next += 1
        return step + _whole_steps(seconds * self._scale, self._hz)

    def delay_steps(self, seconds: float) -> int:
        """Return the delay; with a trace the delay of its 95th percentile."""
        if self._trace is None:
            return self.steps
        return _whole_steps(float(np.quantile(self._trace, 0.95)) * self._scale, self._hz)


class ChargedClock(SimulatedClock):
    """The world moves on by the measured time of every single call.

    Args:
        hz: control steps per second.
        scale: factor on the measured times: 2 stands for a machine half as fast.
    """

    name = "charged"

    def __init__(self, hz: float, scale: float = 1.0):
        _check_rate(hz, scale)
        self._hz, self._scale = hz, scale

    def usable_step(self, step: int, seconds: float) -> int:
        """Return `step` plus the periods that have begun before the chunk is ready."""
        return step + self.delay_steps(seconds)

    def delay_steps(self, seconds: float) -> int:
        """Return the periods in `seconds`, rounded up."""
        return _whole_steps(seconds * self._scale, self._hz)


class WallClock:
    """Real time. Step n is due n / hz seconds after the start, however late the earlier steps were.

    It sleeps until just before the moment and then spins, because a sleep ends late by a fraction of a millisecond. A
    loop that is late by whole periods skips them. So it keeps its phase and replays nothing.

    Args:
        hz: control steps per second.
        spin_seconds: longest time to spin.
        now, sleep: the time source; for tests.
    """

    name = "wall"
    simulated = False

    def __init__(
        self,
        hz: float,
        spin_seconds: float = 1e-3,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ):
        _check_rate(hz, 1.0)
        self._hz, self._spin_seconds, self._now, self._sleep = hz, spin_seconds, now, sleep
        self._start = now()

    def reset(self, seed: int = 0) -> None:
        """Set step 0 to now."""
        self._start = self._now()

    def wait_until(self, step: int) -> int:
        """Sleep and spin until `step` is due; if it is over, return the current step."""
        step = max(step, self._current())
        deadline = self._start + step / self._hz
        while (left := deadline - self._now()) > 0:
            if left > self._spin_seconds:
                self._sleep(left - self._spin_seconds)
        return step

    def usable_step(self, step: int, seconds: float) -> int:
        """Return the current step, because the chunk has just arrived."""
        return max(step, self._current())

    def delay_steps(self, seconds: float) -> int:
        """Return the periods in `seconds`, rounded up: at least one, because no inference takes no time."""
        return max(1, _whole_steps(seconds, self._hz))

    def _current(self) -> int:
        return math.floor((self._now() - self._start) * self._hz)


def make_clock(
    name: str,
    hz: float,
    *,
    delay: int = 1,
    trace: Sequence[float] | np.ndarray | None = None,
    scale: float = 1.0,
) -> Clock:
    """Make a clock by its name; `delay` and `trace` are those of `DelayClock`, `scale` also that of `ChargedClock`."""
    if name == "wall":
        return WallClock(hz)
    if name == "paused":
        return PausedClock()
    if name == "delay":
        return DelayClock(delay, trace, hz, scale)
    if name == "charged":
        return ChargedClock(hz, scale)
    raise SpecpolicyError(f"unknown clock '{name}': use one of {', '.join(CLOCKS)}")


def _whole_steps(seconds: float, hz: float) -> int:
    # The product for a whole number of periods may be a rounding error above that number.
    return max(0, math.ceil(seconds * hz - 1e-9))


def _check_rate(hz: float, scale: float) -> None:
    if not (math.isfinite(hz) and hz > 0):
        raise SpecpolicyError(f"hz={hz}: expected a positive number of control steps per second")
    if not (math.isfinite(scale) and scale > 0):
        raise SpecpolicyError(f"a factor of {scale} on the time of inference: expected a positive number")
