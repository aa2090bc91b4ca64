"""The control steps of a run."""

from collections.abc import Iterable
from dataclasses import dataclass

from specpolicy.control.records import Records


@dataclass(frozen=True)
class Tick:
    """One control step.

    Attributes:
        step: its number; a gap in the numbers is a missed period.
        seconds: when it began, from the beginning of step 0.
        age: seconds from the observation behind the executed action to this step; None if no chunk planned it.
        chunk: number of the chunk that planned it; None if none did.
        limited: the limits changed the action.
        jump: Euclidean length of the change from the previous action, or from the robot's position; None for the first
            where that is unknown.
    """

    step: int
    seconds: float
    age: float | None
    chunk: int | None
    limited: bool = False
    jump: float | None = None


class Ticks(Records[Tick]):
    """A list of ticks in 41 bytes each, see `Records`."""

    def __init__(self, ticks: Iterable[Tick] = ()):
        columns = {"step": "q", "seconds": "d", "age": "d?", "chunk": "q?", "limited": "b", "jump": "d?"}
        super().__init__(Tick, columns, ticks)
