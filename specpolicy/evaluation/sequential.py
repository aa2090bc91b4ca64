"""A paired comparison that may be looked at after every episode: the difference of two success rates, at any time.

Intervals for a fixed number of episodes are too narrow for who stops as soon as they show something. A confidence
sequence holds for all numbers of episodes at once: with probability 1 - alpha it covers the difference after every
pair, so an evaluation may stop whenever it wants to.

For each difference m that may be true, a gambler bets on the paired outcomes D in {-1, 0, 1}. If m is true, his capital
is a martingale, and by Ville's inequality it ever reaches 1 / alpha with a probability of alpha at most. The sequence
holds the m at which he has not become that rich. Here his capital is the average over fixed bets of all sizes, so it
depends on the three counts alone. Sources: Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables
by betting, J. R. Stat. Soc. B 86, 1 (arXiv:2010.09686); the mixture of bets is that of Cover's universal portfolio,
Orabona and Jun (2021), arXiv:2110.14099.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZES = 64  # bets of a gambler in each direction
STEP = 0.001  # of the differences that are tried


@dataclass(frozen=True)
class PairCounts:
    """Outcomes of pairs of episodes with the same seed.

    Attributes:
        first: only the first was solved.
        second: only the second was solved.
        same: both, or none.
    """

    first: int
    second: int
    same: int

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return self.first + self.second + self.same


@dataclass(frozen=True)
class Sequential:
    """What is known of a difference at some time.

    Attributes:
        pairs: pairs of episodes that were counted.
        estimate: success rate of the first minus that of the second.
        low, high: the confidence sequence at this time.
        verdict: "higher" or "lower" (of the first), "equivalent" (within the margin), or "open".
    """

    pairs: int
    estimate: float
    low: float
    high: float
    verdict: str


def log_capital(counts: PairCounts, differences: np.ndarray) -> np.ndarray:
    """Return the log of the gambler's capital, (M,), if the hypothetical differences (M,), within +-1, were true.

    Half of the capital bets on a greater difference, half on a smaller one; each half in equal parts on `SIZES` bets,
    the smaller ones closer together.
    """
    shares = ((np.arange(SIZES) + 0.5) / SIZES) ** 2  # of the bet with which one pair could lose all
    m = np.asarray(differences, dtype=np.float64)[:, None]
    # The capital of a bet of size b is multiplied by 1 + b (D - m); D - m lies between -1 - m and 1 - m.
    bets = np.concatenate([shares / (1 + m), -shares / (1 - m)], axis=1)
    found = (
        counts.first * np.log1p(bets * (1 - m))
        + counts.second * np.log1p(-bets * (1 + m))
        + counts.same * np.log1p(-bets * m)
    )
    most = found.max(axis=1, keepdims=True)
    return (most + np.log(np.mean(np.exp(found - most), axis=1, keepdims=True)))[:, 0]


@functools.lru_cache(maxsize=4096)
def difference_sequence(counts: PairCounts, alpha: float) -> tuple[float, float]:
    """Return the confidence sequence (low, high) of the difference; (-1, 1) without pairs.

    Ends are rounded outwards to multiples of `STEP`.
    """
    tried = np.arange(-1 + STEP, 1, STEP)
    inside = tried[log_capital(counts, tried) < -np.log(alpha)]
    if not len(inside):  # between two of the tried differences
        estimate = (counts.first - counts.second) / counts.pairs
        return max(-1.0, estimate - STEP), min(1.0, estimate + STEP)
    return max(-1.0, float(inside[0]) - STEP), min(1.0, float(inside[-1]) + STEP)


def compare(first: Sequence[bool], second: Sequence[bool], alpha: float, margin: float) -> Sequential:
    """Return what the outcomes of pairs say by now.

    Args:
        first, second: outcomes of the pairs, in an order that does not depend on them: a prefix of the seeds.
        alpha: probability with which the sequence may ever miss the difference.
        margin: differences within +-margin count as none.
    """
    ones = sum(a and not b for a, b in zip(first, second, strict=True))
    twos = sum(b and not a for a, b in zip(first, second, strict=True))
    counts = PairCounts(ones, twos, len(first) - ones - twos)
    low, high = difference_sequence(counts, alpha)
    verdict = "open"
    if low > 0 or high < 0:
        verdict = "higher" if low > 0 else "lower"
    elif -margin < low and high < margin:
        verdict = "equivalent"
    return Sequential(len(first), (ones - twos) / max(1, len(first)), low, high, verdict)
