"""A condition of an evaluation: a sampler, what its time means for the world, and how its chunks become actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specpolicy.control.clock import ChargedClock, Clock, DelayClock, PausedClock
from specpolicy.control.execution import Execution
from specpolicy.control.trace import read_trace
from specpolicy.sampler_names import option_defaults

PAUSED = "paused"
# Samplers whose `steps` are their own setting; for the others another number of steps is another chain.
OWN_STEPS = ("ddim", "dpm_solver")
DISTRIBUTIONS = ("eta", "tolerance")  # options that choose a distribution, not how fast it is drawn


@dataclass(frozen=True)
class Condition:
    """One way to run a policy. All conditions of an evaluation play the same seeds.

    Attributes:
        sampler: label of the sampler.
        clock: "paused", "delay" (a given number of control steps), "charged" (the measured time of every call), or
            "trace" (the times of a recorded trace, one call after the other).
        delay: control steps that a chunk takes; for the clock "delay".
        factor: on the times; for "charged" and "trace".
        trace: the CSV file of the recorded calls.
        trace_digest: a hash of the trace, which knows it wherever it lies.
        execute_steps: control steps from one request for a chunk to the next; None: the policy's own.
        stitching, on_miss, ensemble_decay, hold: see `specpolicy.control.Execution`.
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

    @property
    def label(self) -> str:
        """The condition's name in tables: the sampler, and whatever is not as in classic evaluation."""
        return " ".join([self.sampler, *([self.circumstances] if self.circumstances else [])])

    @property
    def circumstances(self) -> str:
        """What the condition shares with those of other samplers; empty for classic evaluation."""
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
        return " ".join(parts)

    @property
    def waits(self) -> bool:
        """Whether inference costs the world no time."""
        return self.clock == PAUSED or (self.clock == "delay" and self.delay == 0)

    @property
    def execution(self) -> Execution:
        """How chunks become actions."""
        return Execution(self.execute_steps, None, self.on_miss, self.stitching, float(self.ensemble_decay), self.hold)

    def make_clock(self, hz: float) -> Clock:
        """The condition's clock in a world of `hz` control steps per second."""
        if self.clock == "delay":
            return DelayClock(self.delay)
        if self.clock == "charged":
            return ChargedClock(hz, self.factor)
        if self.clock == "trace":
            assert self.trace is not None
            return DelayClock(trace=read_trace(self.trace, self.sampler), hz=hz, scale=self.factor)
        return PausedClock()


def method(spec: Mapping[str, Any]) -> str:
    """The method that a sampler is a setting of: DDIM with 4 and with 10 steps are one, and so are all windows of ASD.

    A chain with fewer steps is another distribution, and so another method; so is an unusual `eta` or `tolerance`.
    """
    name, steps = str(spec["name"]), spec.get("steps")
    found = name if steps is None or name in OWN_STEPS else f"{name}-{steps}"
    usual = option_defaults(name)
    for option in DISTRIBUTIONS:
        if spec.get(option) is not None and spec[option] != usual.get(option):
            found += f"-{option}{float(spec[option])}"  # as in the labels of samplers
    return found
