"""Conditions of an evaluation: a sampler, what its time means for the world, and how its chunks become actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specpolicy.control.clock import ChargedClock, Clock, DelayClock, PausedClock
from specpolicy.control.execution import Execution
from specpolicy.control.trace import read_trace
from specpolicy.sampler_names import option_defaults

PAUSED = "paused"
# For these samplers, `steps` is a setting of the sampler. For all others, other `steps` mean another chain.
OWN_STEPS = ("ddim", "dpm_solver", "euler", "midpoint", "rk4")
DISTRIBUTIONS = ("eta", "tolerance")  # options that change the distribution, not only the speed


@dataclass(frozen=True)
class Condition:
    """One way to run a policy. All conditions of an evaluation play the same seeds.

    Attributes:
        sampler: label of the sampler.
        clock: "paused"; "delay", a fixed number of control steps; "charged", the measured time of every call; or
            "trace", the times of a recorded trace, call by call.
        delay: control steps that a chunk takes; for the clock "delay".
        factor: factor on the times; for "charged" and "trace".
        trace: path of the CSV file with the recorded calls.
        trace_digest: hash of the trace's content, so that a moved file is recognised.
        execute_steps: control steps from one request for a chunk to the next; None: the policy's own number.
        stitching, on_miss, ensemble_decay, hold, in_flight: see `specpolicy.control.Execution`.
    """

    sampler: str
    clock: str = PAUSED
    delay: int = 0
    factor: float = 1.0
    trace: str | None = None
    trace_digest: str | None = None
    execute_steps: int | None = None
    stitching: str = "continue_chunk"
    on_miss: str = "continue_chunk"
    ensemble_decay: float = 0.01
    hold: tuple[float | None, ...] | None = None
    in_flight: int = 1

    @property
    def label(self) -> str:
        """The condition's name in tables: the sampler, then everything that differs from classic evaluation."""
        return " ".join([self.sampler, *([self.circumstances] if self.circumstances else [])])

    @property
    def circumstances(self) -> str:
        """Everything but the sampler, as text; empty for classic evaluation."""
        parts = []
        if self.clock == "delay":
            parts.append(f"d{self.delay}")
        elif self.clock != PAUSED:
            parts.append(self.clock if self.factor == 1 else f"{self.clock} x{self.factor:g}")
        if self.execute_steps is not None:
            parts.append(f"e{self.execute_steps}")
        if self.stitching != "continue_chunk":
            parts.append(self.stitching)
        if self.on_miss != "continue_chunk":
            parts.append(f"on_miss {self.on_miss}")
        if self.in_flight > 1:
            parts.append(f"{self.in_flight} in flight")
        return " ".join(parts)

    @property
    def waits(self) -> bool:
        """Whether the world waits for inference."""
        return self.clock == PAUSED or (self.clock == "delay" and self.delay == 0)

    @property
    def execution(self) -> Execution:
        """How chunks become actions."""
        decay = float(self.ensemble_decay)
        return Execution(self.execute_steps, None, self.on_miss, self.stitching, decay, self.hold, self.in_flight)

    def make_clock(self, hz: float) -> Clock:
        """Return the condition's clock for a world of `hz` control steps per second."""
        if self.clock == "delay":
            return DelayClock(self.delay)
        if self.clock == "charged":
            return ChargedClock(hz, self.factor)
        if self.clock == "trace":
            assert self.trace is not None
            return DelayClock(trace=read_trace(self.trace, self.sampler), hz=hz, scale=self.factor)
        return PausedClock()


def method(spec: Mapping[str, Any]) -> str:
    """Name the method of a sampler: DDIM with 4 and with 10 steps are one method, and so are all draft lengths of ASD.

    A chain with fewer steps has another distribution and counts as another method. So does an unusual `eta` or
    `tolerance`.
    """
    name, steps = str(spec["name"]), spec.get("steps")
    found = name if steps is None or name in OWN_STEPS else f"{name}-{steps}"
    usual = option_defaults(name)
    for option in DISTRIBUTIONS:
        if spec.get(option) is not None and spec[option] != usual.get(option):
            found += f"-{option}{float(spec[option])}"  # written as in the labels of samplers
    return found
