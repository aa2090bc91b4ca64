"""Statistical power: which differences a number of episodes can show, before anything is played."""

import math
from statistics import NormalDist

import numpy as np

from specpolicy.evaluation.equivalence import both_reject

POWER = 0.8
CONFIDENCE = 0.95
MANY = 200  # number of differing pairs above which the power rises smoothly enough
WIDEST_TOOTH = 2.5  # times 1 / margin: the most pairs between two critical numbers of pairs


def smallest_difference(
    episodes: int, success: float, power: float = POWER, confidence: float = CONFIDENCE
) -> float | None:
    """Return the smallest loss of success that `episodes` pairs show with probability `power`; None if no loss is.

    Uses the approximation of Connor (1987, Biometrics 43, 207) to McNemar's test, for pairs of independent outcomes.
    Common seeds make the two outcomes more alike, so the difference that can be seen is smaller.

    Args:
        episodes: number of pairs.
        success: success rate of the reference, between 0 and 1.
        power: wanted probability of showing the loss.
        confidence: confidence level of the test.
    """
    _check(success)
    z, z_power = NormalDist().inv_cdf(0.5 + confidence / 2), NormalDist().inv_cdf(power)

    def shown(difference: float) -> bool:
        discordant = success * (1 - success + difference) + (success - difference) * (1 - success)
        spread = z * math.sqrt(discordant) + z_power * math.sqrt(max(0.0, discordant - difference**2))
        return difference * math.sqrt(episodes) >= spread

    low, high = 0.0, success
    if not shown(high):
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def episodes_for_equivalence(margin: float, success: float, power: float = POWER) -> int:
    """Return the number of pairs from which on both tests of `equivalence` reject with probability `power`.

    Args:
        margin: margin of the tests.
        success: rate of both, between 0 and 1; the two outcomes of a pair are taken as independent.
        power: wanted probability.
    """
    _check(success)
    low, high = 0, 1
    while equivalence_power(high, margin, success) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if equivalence_power(middle, margin, success) < power else (low, middle)
    if 2 * high * success * (1 - success) > MANY:
        return high
    # The power is a sawtooth: it jumps at a critical number of pairs, where one more pair may differ, and falls
    # until the next. If few pairs differ, it may fall below the wanted power once more.
    tooth = math.ceil(WIDEST_TOOTH / margin)
    beyond = range(high, high + tooth, max(1, tooth // 100))
    missed = [n for n in beyond if equivalence_power(n, margin, success) < power]
    return missed[-1] + 1 if missed else high


def equivalence_power(n: int, margin: float, success: float) -> float:
    """Return the probability that both tests of `equivalence` reject, for `n` pairs of independent outcomes.

    Sums the trinomial distribution of "only the first", "only the second" and the rest over the outcomes that both
    tests reject. A normal approximation would be poor: if nearly all episodes are solved, too few pairs differ.

    Args:
        n: number of pairs.
        margin: margin of the tests.
        success: rate of both, between 0 and 1.
    """
    _check(success)
    rate = success * (1 - success)  # rate of "only the first", and of "only the second"
    spread = math.sqrt(n * rate * (1 - rate))
    reach = 8 * spread + 12  # counts further from the mean have almost no probability
    step = max(1, int(spread / 32))  # if there are very many counts, every `step`-th stands for its neighbours
    counts = np.arange(max(0, math.ceil(n * rate - reach)), min(n, math.floor(n * rate + reach)) + 1, step)
    places = np.arange(len(counts))
    rest = n - 2 * counts[0] - step * np.arange(2 * len(counts) - 1)  # indexed by the sum of two positions
    one = _log_terms(counts, rate)
    both = one[:, None] + one + _log_terms(rest, 1 - 2 * rate)[np.add.outer(places, places)]
    chances = np.exp(both - both.max())
    rejected = both_reject(counts[:, None], counts, n, margin)
    return float(chances[rejected].sum() / chances.sum())


def sample_size_note(episodes: int, success: float, margin: float) -> str:
    """Say in a sentence or two what this many episodes can show."""
    least = smallest_difference(episodes, success)
    seen = (
        "no difference is sure to be seen" if least is None else f"a loss of {100 * least:.0f} points or more is seen"
    )
    needed = episodes_for_equivalence(margin, success)
    verdict = "which is given" if episodes >= needed else "which is more than are played"
    return (
        f"{episodes} episodes of each condition, paired by seed: where the reference solves {100 * success:g} %, "
        f"{seen} with {100 * POWER:g} % probability (5 % level). Showing that two conditions are equal "
        f"within {100 * margin:g} points takes about {needed}, {verdict}."
    )


def _log_terms(counts: np.ndarray, rate: float) -> np.ndarray:
    """Return (k,) log(rate ** count / count!), a factor of a multinomial probability; -inf for a negative count."""
    terms = [count * math.log(rate) - math.lgamma(count + 1) if count >= 0 else -math.inf for count in counts.tolist()]
    return np.array(terms)


def _check(success: float) -> None:
    if not 0 < success < 1:
        raise ValueError(f"a success rate of {success}: expected a number between 0 and 1")
