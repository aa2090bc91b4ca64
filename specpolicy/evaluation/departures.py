"""Where two runs of one environment depart from each other: the first step, the key and the size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Departure:
    """The first step at which two runs differ by more than a tolerance.

    Attributes:
        step: control steps since the reset; 0 is the reset itself.
        key: the quantity that differs most there, in units of its tolerance.
        size: its largest difference.
    """

    step: int
    key: str
    size: float

    def __str__(self) -> str:
        where = "at the reset" if self.step == 0 else f"at step {self.step}"
        return f"{where}, {self.key} by {self.size:.2g}"


def departure(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> Departure | None:
    """Return the first departure of two runs, None if there is none.

    Numbers a and b agree if |a - b| <= tolerance * (1 + |a|). With the same versions on the same processor they are
    equal to the bit. Another processor may round otherwise, in the last digits at first; contacts between bodies make
    such differences grow with the steps.

    Args:
        one: (T, ...) of each key, row t after t steps.
        other: the same keys; a run that ends sooner departs where it ends.
        tolerance: 0 asks for equality to the bit.
    """
    found: Departure | None = None
    most = 0.0
    for key in one:
        a, b = (np.asarray(run[key], dtype=np.float64).reshape(len(run[key]), -1) for run in (one, other))
        length = min(len(a), len(b))
        if a.shape[1] != b.shape[1]:
            return Departure(0, f"the size of {key}", abs(a.shape[1] - b.shape[1]))
        with np.errstate(invalid="ignore"):  # inf - inf
            difference = np.where(
                (a[:length] == b[:length]) | (np.isnan(a[:length]) & np.isnan(b[:length])),
                0.0,
                np.abs(a[:length] - b[:length]),
            )
        difference = np.where(np.isnan(difference), np.inf, difference)
        allowed = tolerance * (1 + np.abs(np.nan_to_num(a[:length])))
        beyond = (difference > allowed).any(axis=1)
        step = int(beyond.argmax()) if beyond.any() else length
        if not beyond.any() and len(a) == len(b):
            continue
        size = float(difference[step].max()) if step < length else float(abs(len(a) - len(b)))
        excess = float((difference[step] / np.maximum(allowed[step], 1e-300)).max()) if step < length else 0.0
        name = key if step < length else "the number of steps"
        if found is None or step < found.step or (step == found.step and excess > most):
            found, most = Departure(step, name, size), excess
    return found
