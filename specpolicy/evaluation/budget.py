"""Success within a latency budget: the best setting of each method that keeps the budget."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """One setting of a method, as it was played.

    Attributes:
        label: label of its condition.
        seconds: 95th percentile of its time per chunk, in seconds.
        outcomes: (n,) bool, success by seed; all settings have the same seeds.
    """

    label: str
    seconds: float
    outcomes: np.ndarray


@dataclass(frozen=True)
class Choice:
    """The success that a method reaches within a budget.

    Attributes:
        settings: labels of the chosen settings: one, or two if the two halves of the seeds choose differently.
        outcomes: (n,) bool, for each seed the success of the setting that the other half of the seeds chose.
    """

    settings: tuple[str, ...]
    outcomes: np.ndarray


def best_within(settings: list[Setting], budget: float) -> Choice | None:
    """Choose the best setting whose 95th percentile is within `budget` seconds; None if no setting is that fast.

    The best of many settings looks better on the episodes that chose it than it is. So each half of the seeds chooses a
    setting, and its success is counted on the other half. Every episode counts once.
    """
    within = sorted((setting for setting in settings if setting.seconds <= budget), key=lambda one: one.seconds)
    if not within:
        return None
    n = len(within[0].outcomes)
    outcomes = np.zeros(n, dtype=bool)
    chosen = []
    for half in (0, 1):
        counted = np.arange(n) % 2 == half
        if not counted.any():
            continue
        best = max(within, key=lambda one: one.outcomes[~counted].sum())  # of equal settings the fastest
        outcomes[counted] = best.outcomes[counted]
        if best.label not in chosen:
            chosen.append(best.label)
    return Choice(tuple(chosen), outcomes)


def choices(methods: Mapping[str, list[Setting]], budgets_ms: list[float]) -> list[tuple[str, float, Choice | None]]:
    """Return (method, budget in ms, choice) for each method and budget."""
    return [
        (name, budget, best_within(settings, 1e-3 * budget))
        for name, settings in methods.items()
        for budget in budgets_ms
    ]
