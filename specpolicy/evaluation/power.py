"""How many episodes show what: known before anything is played."""

import math
from statistics import NormalDist

POWER = 0.8
CONFIDENCE = 0.95


def smallest_difference(
    episodes: int, success: float, power: float = POWER, confidence: float = CONFIDENCE
) -> float | None:
    """The smallest loss of success that `episodes` pairs show with probability `power`; None if none is large enough.

    The approximation of Connor (1987, Biometrics 43, 207) to McNemar's test, for pairs that have nothing but their
    rates in common. Common seeds make outcomes more alike than that, and the difference seen smaller.

    Args:
        success: rate of the reference, between 0 and 1.
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


def episodes_for_equivalence(margin: float, success: float, power: float = POWER, level: float = 0.05) -> int:
    """Pairs that two one-sided tests at `level` need to show that two equal rates differ by less than `margin`.

    Args:
        success: both rates, between 0 and 1; the pairs have nothing else in common.
    """
    _check(success)
    z = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(0.5 + power / 2)
    return math.ceil(z * z * 2 * success * (1 - success) / margin**2)


def sample_size_note(episodes: int, success: float, margin: float) -> str:
    """What to expect of this many episodes, in a sentence or two."""
    least = smallest_difference(episodes, success)
    seen = (
        "no difference is sure to be seen" if least is None else f"a loss of {100 * least:.0f} points or more is seen"
    )
    needed = episodes_for_equivalence(margin, success)
    verdict = "which is given" if episodes >= needed else "which is more than are played"
    return (
        f"{episodes} episodes of each arm, paired by seed: where the reference solves {100 * success:g} %, {seen} with "
        f"{100 * POWER:g} % probability (5 % level). Showing that two arms are equal within {100 * margin:g} points "
        f"takes about {needed}, {verdict}."
    )


def _check(success: float) -> None:
    if not 0 < success < 1:
        raise ValueError(f"a success rate of {success}: expected a number between 0 and 1")
