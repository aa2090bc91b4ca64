"""Clocks: what the time that inference takes means for the world.

A control loop asks its clock two things: when the next control step may be taken, and from which control step on
a chunk can be used. Four clocks answer differently:

| clock | the next step | a chunk asked for at step t, computed in s seconds, is usable from |
|---|---|---|
| `paused` | at once | t: the world waits for inference (classic evaluation) |
| `delay` | at once | t + d for a given d, or from a recorded trace of s (reproducible) |
| `charged` | at once | t + ceil(s * hz): the world moves on by the measured time |
| `wall` | when its moment has come | the step of the real time at which the chunk arrived (real robots) |
"""

from typing import Protocol


class Clock(Protocol):
    """Relates control steps to the time that inference takes."""

    name: str

    def reset(self) -> None:
        """An episode begins: control step 0 is now."""

    def wait_until(self, step: int) -> None:
        """Return when the world may take control step `step`."""

    def usable_step(self, step: int, seconds: float) -> int:
        """First control step that can use a chunk for the observation of `step` that took `seconds` to compute."""
        ...


class PausedClock:
    """The world waits while the policy computes, so that inference costs no simulated time."""

    name = "paused"

    def reset(self) -> None:
        """Nothing to begin."""

    def wait_until(self, step: int) -> None:
        """Never waits."""

    def usable_step(self, step: int, seconds: float) -> int:
        """The step of the observation itself, however long the chunk took."""
        return step
