"""Equivalence of two success rates on the same seeds: two one-sided tests on paired outcomes."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # level of each of the two tests


@dataclass(frozen=True)
class Equivalence:
    """The outcome of both tests.

    Attributes:
        margin: differences within +- margin count as none.
        p_value: p-value of the hypothesis that the rates differ by the margin or more; the larger of the two tests.
        p_no_loss: p-value of the hypothesis that the first rate is lower by the margin or more.
        low, high: 90 % score interval of the difference. It lies within the margin if and only if p_value < 0.05.
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
    """Test equivalence by two one-sided tests (Schuirmann 1987) with the score statistic of Tango (1998).

    Args:
        first, second: (n,) bool, the outcome of each seed; the difference is `first` minus `second`.
        margin: margin of the difference, between 0 and 1.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected two (n,) arrays with n >= 1, got shapes {first.shape} and {second.shape}")
    if not 0 < margin < 1:
        raise ValueError(f"a margin of {margin}: expected a number between 0 and 1")
    counts = int((first & ~second).sum()), int((~first & second).sum()), len(first)
    normal = NormalDist()
    below = 1 - normal.cdf(score(*counts, -margin))  # evidence that the difference is greater than -margin
    above = normal.cdf(score(*counts, margin))
    z = normal.inv_cdf(1 - LEVEL)
    estimate = (counts[0] - counts[1]) / counts[2]
    low = _root(lambda difference: score(*counts, difference) - z, -1.0, estimate)
    high = _root(lambda difference: score(*counts, difference) + z, estimate, 1.0)
    return Equivalence(margin, max(below, above), below, low, high)


def both_reject(only_first: np.ndarray, only_second: np.ndarray, n: int, margin: float) -> np.ndarray:
    """Whether both tests reject at `LEVEL`, for many outcomes at once; shapes as in `scores`."""
    z = NormalDist().inv_cdf(1 - LEVEL)
    return (scores(only_first, only_second, n, -margin) > z) & (scores(only_first, only_second, n, margin) < -z)


def score(only_first: int, only_second: int, n: int, difference: float) -> float:
    """Return Tango's statistic for the hypothesis that the rates differ by `difference`.

    It is standard normal under the hypothesis for large n, and falls as `difference` rises. Source: Tango (1998),
    Statistics in Medicine 17, 891.

    Args:
        only_first, only_second: number of seeds, of `n`, that only the first or only the second has solved.
        n: number of seeds.
        difference: hypothetical difference, first minus second.
    """
    return float(scores(np.array(only_first), np.array(only_second), n, difference))


def scores(only_first: np.ndarray, only_second: np.ndarray, n: int, difference: float) -> np.ndarray:
    """Return `score` for many outcomes of `n` pairs at once; counts broadcast to their common shape."""
    first, second = np.asarray(only_first, dtype=np.float64), np.asarray(only_second, dtype=np.float64)
    # The most likely rate of "only the second" given the difference is the larger root of a quadratic.
    a = 2 * n
    b = (2 * n - first + second) * difference - first - second
    c = -second * difference * (1 - difference)
    rate = (np.sqrt(np.maximum(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * rate + difference * (1 - difference))
    distance = first - second - n * difference
    # A certain outcome: any other outcome is impossible.
    certain = np.where(np.abs(distance) < 1e-9, 0.0, np.copysign(np.inf, distance))
    known = variance > 1e-12
    return np.where(known, distance / np.sqrt(np.where(known, variance, 1.0)), certain)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find by bisection where a falling function crosses zero; if it does not, return the nearer end."""
    if function(low) <= 0:
        return low
    if function(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2
