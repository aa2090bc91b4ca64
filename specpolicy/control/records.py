"""Records of a run as columns of numbers, so that a loop that runs for days does not stutter."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan, nan
from typing import Any, Generic, TypeVar, overload

import numpy as np

Row = TypeVar("Row")


class Records(Sequence[Row], Generic[Row]):
    """A list of records that holds numbers, not objects, and nothing for Python's collector to scan. With a hundred
    thousand objects its passes would take longer than a control period.

    One thread may append while others read: they see whole records only.

    Args:
        kind: the dataclass of a record.
        columns: type of each of its fields, in their order, as in `array.array`: "q" for a whole number, "d" for a
            number, "b" for a truth value. "q?" and "d?" may be None, which is stored as -1 and as NaN.
        rows: the first records.
    """

    def __init__(self, kind: type[Row], columns: Mapping[str, str], rows: Iterable[Row] = ()):
        self._kind, self._types = kind, dict(columns)
        self._columns: dict[str, Any] = {name: array(told[0]) for name, told in columns.items()}
        self._length = 0
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Append a record."""
        for name, column in self._columns.items():
            column.append(_stored(getattr(row, name), self._types[name]))
        self._length += 1  # last: a reader takes no column further than this

    def columns(self) -> dict[str, np.ndarray]:
        """Return copies of all columns, (N,) each: int64, float64 or bool. None is -1 or NaN, see above."""
        length = self._length
        # An array that numpy looks into cannot grow, and the loop may append at any moment: numpy gets a copy.
        found = {name: np.asarray(column[:length]) for name, column in self._columns.items()}
        return {name: column.astype(bool) if self._types[name] == "b" else column for name, column in found.items()}

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        numbers = range(self._length)[place]
        return self._row(numbers) if isinstance(numbers, int) else [self._row(number) for number in numbers]

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def _row(self, number: int) -> Row:
        return self._kind(*(_told(column[number], self._types[name]) for name, column in self._columns.items()))

    def _store(self, number: int, row: Row) -> None:
        """Replace a record."""
        for name, column in self._columns.items():
            column[number] = _stored(getattr(row, name), self._types[name])


def _stored(value: Any, told: str) -> float:
    """Return the number that stands for a value of a field of type `told`."""
    if told[0] == "d":
        return nan if value is None else float(value)
    return -1 if value is None else int(value)


def _told(number: float, told: str) -> Any:
    """Return the value that a number stands for."""
    if told == "b":
        return bool(number)
    missing = told[-1] == "?" and (number < 0 if told[0] == "q" else isnan(number))
    return None if missing else number
