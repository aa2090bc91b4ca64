"""Limits on a robot's actions: range and rate, per dimension."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError


@dataclass(frozen=True, eq=False)  # arrays cannot be compared by ==
class Limits:
    """Limits per action dimension, in the action's units. A scalar serves all dimensions, None sets no limit.

    Attributes:
        low, high: the range.
        rate: the largest change per second, counted from the robot's first position (see `Controller`). A larger change
            is spread over several control steps.

    Raises:
        SpecpolicyError: a limit is not a number or list of numbers, their lengths differ, or the range is empty.
    """

    low: Any = None
    high: Any = None
    rate: Any = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "rate"):
            value = getattr(self, name)
            if value is not None:
                try:
                    array = np.array(value, dtype=np.float64)
                except (TypeError, ValueError):
                    array = np.array(np.nan)
                if array.ndim > 1 or np.isnan(array).any():
                    raise SpecpolicyError(f"limits: {name}={value} must be a number or one number per dimension")
                object.__setattr__(self, name, array)
        given = {name: value for name in ("low", "high", "rate") if (value := getattr(self, name)) is not None}
        lengths = {name: len(value) for name, value in given.items() if value.ndim}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise SpecpolicyError(f"limits: {told} entries; each needs one per action dimension")
        if self.low is not None and self.high is not None and not (self.low <= self.high).all():
            raise SpecpolicyError(f"limits: low={self.low} is above high={self.high}")
        if self.rate is not None and not (self.rate > 0).all():
            raise SpecpolicyError(f"limits: rate={self.rate} must be positive")

    def check(self, dimensions: int) -> None:
        """Raise a clear error unless the limits fit actions of this many dimensions."""
        for name in ("low", "high", "rate"):
            value = getattr(self, name)
            if value is not None and value.shape not in ((), (dimensions,)):
                raise SpecpolicyError(f"limits: {name} has {len(value)} entries, an action has {dimensions}")

    def apply(self, action: np.ndarray, previous: np.ndarray | None, seconds: float) -> np.ndarray:
        """Return the nearest allowed action: in the range, and from `previous` no farther than the rate allows.

        Computed in float64, and rounded to the action's dtype towards the allowed side. Whole numbers become float64.
        So does an action whose dtype is too coarse for so small a step. From a `previous` outside the range the action
        leads back into it at the rate.

        Args:
            action: (D,) the wanted action.
            previous: (D,) the action before it, or the robot's position; None if unknown, so that only the range limits
                the first action.
            seconds: the control period.

        Raises:
            SpecpolicyError: `action` or `previous` is not finite.
        """
        wanted = np.array(action, dtype=np.float64)
        if not np.isfinite(wanted).all() or (previous is not None and not np.isfinite(previous).all()):
            raise SpecpolicyError("limits: the action, or the one before it, is not finite")
        low = np.broadcast_to(-np.inf if self.low is None else self.low, wanted.shape)
        high = np.broadcast_to(np.inf if self.high is None else self.high, wanted.shape)
        allowed = np.clip(wanted, low, high)
        if self.rate is not None and previous is not None:
            before = np.asarray(previous, dtype=np.float64)
            least, most = _reach(before, self.rate * seconds)
            allowed = np.clip(allowed, least, most)
            # Outside the range and too far to reach it in one step: accept any point on the way there.
            low, high = (
                np.where(low > most, before, np.maximum(low, least)),
                np.where(high < least, before, np.minimum(high, most)),
            )
        return _rounded(allowed, np.asarray(action).dtype, low, high, previous)


def _reach(before: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of `before` ± `step`, never more than `step` away where the sum was rounded up."""
    with np.errstate(over="ignore"):  # beyond the largest number there is no limit
        least, most = before - step, before + step
        least = np.where(before - least > step, np.nextafter(least, np.inf), least)
        most = np.where(most - before > step, np.nextafter(most, -np.inf), most)
    return least, most


def _rounded(
    value: np.ndarray, dtype: np.dtype, low: np.ndarray, high: np.ndarray, previous: np.ndarray | None
) -> np.ndarray:
    """Return `value` in `dtype` and still in [low, high]; in float64 if that is impossible or would hold the robot for
    ever."""
    if dtype.kind != "f" or dtype.itemsize >= value.dtype.itemsize:
        return value
    with np.errstate(over="ignore"):  # infinite, and so outside, where the dtype does not reach that far
        rounded = value.astype(dtype)
        rounded = np.where(rounded.astype(value.dtype) > high, np.nextafter(rounded, dtype.type(-np.inf)), rounded)
        rounded = np.where(rounded.astype(value.dtype) < low, np.nextafter(rounded, dtype.type(np.inf)), rounded)
    exact = rounded.astype(value.dtype)
    fits = (exact >= low) & (exact <= high) & np.isfinite(exact)
    if previous is not None:
        fits &= np.sign(exact - previous) == np.sign(value - previous)  # it neither stands still nor turns back
    return rounded.astype(dtype, copy=False) if fits.all() else value
