"""Limits on the actions that a robot is given: range and rate, per dimension."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError


@dataclass(frozen=True, eq=False)  # arrays have no truth value to compare by
class Limits:
    """Limits per action dimension, in the action's units. A scalar serves all dimensions, None sets no limit.

    Attributes:
        low, high: the range.
        rate: the largest change per second. A change beyond it is taken in several control steps.

    Raises:
        SpecpolicyError: a limit is no number or list of numbers, their lengths differ, or nothing lies between them.
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
        """The nearest allowed action.

        Args:
            action: (D,) what is wanted.
            previous: (D,) the action before it, None for the first one, which has the range's limits only.
            seconds: the control period.
        """
        if self.rate is not None and previous is not None:
            step = self.rate * seconds
            action = np.clip(action, previous - step, previous + step)
        if self.low is not None or self.high is not None:
            action = np.clip(action, self.low, self.high)
        return action
