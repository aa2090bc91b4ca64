"""Success against a latency budget: each method at the best of its settings that keeps the budget."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """One setting of a method, as it was played.

    Attributes:
        label: of its condition.
        seconds: 95th percentile of its time per chunk.
        outcomes: (n,) bool, by seed, the same seeds for all settings.
    """

    label: str
    seconds: float
    outcomes: np.ndarray


@dataclass(frozen=True)
class Choice:
    """What a method reaches within a budget.

    Attributes:
        settings: labels of the settings chosen, one or, if the two halves of the seeds disagree, two.
        outcomes: (n,) bool, of the setting that the other half of the seeds has chosen.
    """

    settings: tuple[str, ...]
    outcomes: np.ndarray


def best_within(settings: list[Setting], budget: float) -> Choice | None:
    """The best setting whose 95th percentile is within `budget` seconds; None if none is.

    The seed halves choose for each other: the best of many settings on some episodes looks better on these than it
    is, so its success is counted on the others. Every episode counts once.
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
        best = max(within, key=lambda one: one.outcomes[~counted].sum())  # the quickest of equals
        outcomes[counted] = best.outcomes[counted]
        if best.label not in chosen:
            chosen.append(best.label)
    return Choice(tuple(chosen), outcomes)


def choices(methods: Mapping[str, list[Setting]], budgets_ms: list[float]) -> list[tuple[str, float, Choice | None]]:
    """(method, budget in ms, choice) for each method and budget."""
    return [
        (name, budget, best_within(settings, 1e-3 * budget))
        for name, settings in methods.items()
        for budget in budgets_ms
    ]
