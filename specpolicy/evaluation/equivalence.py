"""Are two success rates on the same seeds the same within a margin? Two one-sided tests on paired outcomes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # of each of the two tests


@dataclass(frozen=True)
class Equivalence:
    """The outcome of both tests.

    Attributes:
        margin: differences within +- margin count as none.
        p_value: of the hypothesis that the rates differ by the margin or more, the larger of both tests.
        p_no_loss: of the hypothesis that the first rate is lower by the margin or more.
        low, high: 90 % score interval of the difference; it lies within the margin if and only if p_value < 0.05.
    """

    margin: float
    p_value: float
    p_no_loss: float
    low: float
    high: float

    @property
    def equivalent(self) -> bool:
        """Whether both tests reject at 5 %."""
        return self.p_value < LEVEL

    @property
    def no_loss(self) -> bool:
        """Whether the test against a loss of the margin or more rejects at 5 %."""
        return self.p_no_loss < LEVEL


def equivalence(first: np.ndarray, second: np.ndarray, margin: float) -> Equivalence:
    """Two one-sided tests (Schuirmann 1987) by the score statistic of Tango (1998).

    Args:
        first, second: (n,) bool, the outcome of each seed; the difference is `first` minus `second`.
        margin: between 0 and 1.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected two (n,) arrays with n >= 1, got shapes {first.shape} and {second.shape}")
    if not 0 < margin < 1:
        raise ValueError(f"a margin of {margin}: expected a number between 0 and 1")
    counts = int((first & ~second).sum()), int((~first & second).sum()), len(first)
    normal = NormalDist()
    below = 1 - normal.cdf(score(*counts, -margin))  # evidence that the difference is above -margin
    above = normal.cdf(score(*counts, margin))
    z = normal.inv_cdf(1 - LEVEL)
    estimate = (counts[0] - counts[1]) / counts[2]
    low = _root(lambda difference: score(*counts, difference) - z, -1.0, estimate)
    high = _root(lambda difference: score(*counts, difference) + z, estimate, 1.0)
    return Equivalence(margin, max(below, above), below, low, high)


def score(only_first: int, only_second: int, n: int, difference: float) -> float:
    """Tango's statistic (1998, Statistics in Medicine 17, 891) of the hypothesis that the rates differ by `difference`.

    Standard normal under it for large n; falls as `difference` rises.

    Args:
        only_first, only_second: seeds that only the first or only the second has solved, of `n`.
    """
    # The most likely rate of "only the second", given the difference: the larger root of a quadratic.
    a = 2 * n
    b = (2 * n - only_first + only_second) * difference - only_first - only_second
    c = -only_second * difference * (1 - difference)
    rate = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * rate + difference * (1 - difference))
    distance = only_first - only_second - n * difference
    if variance <= 1e-12:  # certain outcomes: any distance from them is impossible
        return 0.0 if abs(distance) < 1e-9 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the falling function crosses zero, by bisection; the end it does not reach otherwise."""
    if function(low) <= 0:
        return low
    if function(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2
