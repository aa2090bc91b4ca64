"""Intervals for success rates, means and paired differences. Numpy only; all two-sided, 95 % by default."""

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A point estimate and its confidence interval."""

    estimate: float
    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a success rate with the score interval of Wilson (1927, J. Am. Stat. Assoc. 22, 209).

    It keeps its confidence level with few episodes and rates near 0 and 1, where the usual mean +- z * error fails.

    Raises:
        ValueError: there are no episodes, or more successes than episodes.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n and n >= 1")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(
        rate,
        0.0 if successes == 0 else max(0.0, centre - half),
        1.0 if successes == n else min(1.0, centre + half),
    )


def paired_success_difference(first: np.ndarray, second: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Return the difference of two success rates, `first` minus `second`, over the same seeds.

    The interval is method 10 of Newcombe (1998, Statistics in Medicine 17, 2635): the Wilson limits of both rates,
    joined through the correlation of the pairs.

    Args:
        first, second: (n,) bool, the outcome of each seed.
        confidence: confidence level of the interval.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    first, second = _pairs(first, second, bool)
    n = len(first)
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second, neither = int((~first & second).sum()), int((~first & ~second).sum())
    a, b = wilson(both + only_first, n, confidence), wilson(both + only_second, n, confidence)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    excess = float(both * neither - only_first * only_second)
    if excess > 0:
        excess = max(excess - n / 2, 0.0)  # Newcombe's continuity correction of the correlation
    phi = excess / math.sqrt(margins) if margins else 0.0
    below = (a.estimate - a.low, b.high - b.estimate)
    above = (a.high - a.estimate, b.estimate - b.low)
    difference = a.estimate - b.estimate
    return Interval(difference, difference - _joined(*below, phi), difference + _joined(*above, phi))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact p-value of McNemar's test: do both succeed equally often on the same seeds?

    It is the binomial test on the seeds that only one of the two solved. Source: McNemar (1947), Psychometrika 12, 153.

    Args:
        first, second: (n,) bool, the outcome of each seed.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    first, second = _pairs(first, second, bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**discordant)


def mean_interval(values: np.ndarray, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Return a mean with its percentile bootstrap interval; for one value the interval has no width.

    Source: Efron & Tibshirani (1993), chapter 13.

    Args:
        values: (n,), one for each episode.
        confidence: confidence level of the interval.
        seed: seed of the resampling.

    Raises:
        ValueError: the array is not one-dimensional or is empty.
    """
    values = np.asarray(values, dtype=np.float64)
    return ratio_interval(values, np.ones_like(values), confidence, seed)


def ratio_interval(above: np.ndarray, below: np.ndarray, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Return sum of `above` over sum of `below`, with the percentile bootstrap interval over their entries.

    Args:
        above, below: (n,), entry by entry of the same episodes; `below` is positive.
        confidence: confidence level of the interval.
        seed: seed of the resampling.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    above, below = _pairs(above, below, np.float64)
    counts = _resamples(len(above), seed)
    ratios = np.empty(RESAMPLES)
    block = max(1, 1_000_000 // len(above))  # entries in memory at once
    for start in range(0, RESAMPLES, block):
        weights = counts[start : start + block].astype(np.float64)
        ratios[start : start + block] = (weights @ above) / (weights @ below)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))


@functools.lru_cache(maxsize=1)
def _resamples(n: int, seed: int) -> np.ndarray:
    """Return (RESAMPLES, n): how often each of n entries is drawn in each resample."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.uint16)


def paired_mean_difference(first: np.ndarray, second: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of `first - second` over the same seeds, bootstrapped over seeds.

    Args:
        first, second: (n,), one for each seed.
        confidence: confidence level of the interval.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    first, second = _pairs(first, second, np.float64)
    return mean_interval(first - second, confidence)


def _joined(one: float, other: float, phi: float) -> float:
    """Return the length of the sum of two correlated deviations; rounding may make its square negative."""
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _pairs(first: np.ndarray, second: np.ndarray, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, dtype=dtype), np.asarray(second, dtype=dtype)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected two (n,) arrays with n >= 1, got shapes {first.shape} and {second.shape}")
    return first, second
