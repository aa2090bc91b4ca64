"""The control steps of a run, stored so that a loop that runs for days does not stutter."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import overload


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


class Ticks(Sequence[Tick]):
    """A list of ticks that holds numbers, not objects: 41 bytes each, and nothing for Python's collector to scan. With
    a hundred thousand objects its passes would take longer than a control period."""

    def __init__(self, ticks: Iterable[Tick] = ()):
        self._step, self._chunk, self._limited = array("q"), array("q"), array("b")
        self._seconds, self._age, self._jump = array("d"), array("d"), array("d")
        for tick in ticks:
            self.append(tick)

    def append(self, tick: Tick) -> None:
        """Append a tick."""
        self._step.append(tick.step)
        self._seconds.append(tick.seconds)
        self._age.append(nan if tick.age is None else tick.age)
        self._chunk.append(-1 if tick.chunk is None else tick.chunk)
        self._limited.append(tick.limited)
        self._jump.append(nan if tick.jump is None else tick.jump)

    def __len__(self) -> int:
        return len(self._step)

    @overload
    def __getitem__(self, place: int) -> Tick: ...
    @overload
    def __getitem__(self, place: slice) -> list[Tick]: ...
    def __getitem__(self, place: int | slice) -> Tick | list[Tick]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        age, jump, chunk = self._age[place], self._jump[place], self._chunk[place]
        return Tick(
            self._step[place],
            self._seconds[place],
            None if isnan(age) else age,
            None if chunk < 0 else chunk,
            bool(self._limited[place]),
            None if isnan(jump) else jump,
        )

    def __iter__(self) -> Iterator[Tick]:
        return (self[place] for place in range(len(self)))
