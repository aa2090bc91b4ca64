"""Stopping an evaluation when enough is known: which comparisons are decided, by the episodes so far."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from specpolicy.evaluation.comparisons import pairs
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.sequential import Sequential, compare


@dataclass
class _Comparison:
    label: str
    reference: str
    outcomes: tuple[list[bool], list[bool]] = field(default_factory=lambda: ([], []))
    known: Sequential | None = None

    @property
    def decided(self) -> bool:
        return self.known is not None and self.known.verdict != "open"


class EarlyStop:
    """Looks at every comparison after each pair of episodes, and says which conditions need no more of them.

    Pairs are looked at in the order of their seeds, whatever the order in which episodes end: a short episode is more
    often a solved one, so to count those that happen to be there would be no fair sample. The verdicts therefore depend
    on the outcomes alone, not on processes or interruptions. A decided comparison stays as it was decided.

    Args:
        conditions: all conditions of the evaluation.
        references: labels of the reference samplers, see `comparisons.pairs`.
        seeds: of the episodes, in order.
        alpha: probability with which any of the verdicts may be wrong; comparisons share it equally.
        margin: differences within +-margin count as none.
    """

    def __init__(
        self, conditions: Sequence[Condition], references: Sequence[str], seeds: range, alpha: float, margin: float
    ):
        self.seeds, self.alpha, self.margin = seeds, alpha, margin
        found = pairs(conditions, references)
        chosen = [pair for pair in found if pair[2] == "sampler"]
        compared = {condition.label for pair in chosen for condition in pair[:2]}
        # A condition that no sampler is compared in is compared with its sampler's first one.
        chosen += [pair for pair in found if pair[2] == "circumstances" and pair[0].label not in compared]
        self._comparisons = [_Comparison(one.label, other.label) for one, other, _ in chosen]
        self._solved: dict[tuple[str, int], bool] = {}

    def add(self, label: str, seed: int, success: bool) -> None:
        """Take note of a finished episode."""
        self._solved[label, seed] = success
        for comparison in self._comparisons:
            if label in (comparison.label, comparison.reference) and not comparison.decided:
                self._look(comparison)

    def needs(self, label: str) -> bool:
        """Whether a comparison with this condition is still open."""
        return any(not one.decided for one in self._comparisons if label in (one.label, one.reference))

    def summary(self) -> dict[str, Any]:
        """Return the verdicts in plain values for the summary."""
        found = []
        for one in self._comparisons:
            known = one.known or compare([], [], self._share, self.margin)
            found.append({"condition": one.label, "reference": one.reference, **asdict(known)})
        return {"alpha": self.alpha, "margin": self.margin, "comparisons": found}

    @property
    def _share(self) -> float:
        return self.alpha / max(1, len(self._comparisons))

    def _look(self, comparison: _Comparison) -> None:
        """Look after each pair that is new and has no gap before it, until the comparison is decided."""
        ours, theirs = comparison.outcomes
        while not comparison.decided and len(ours) < len(self.seeds):
            seed = self.seeds[len(ours)]
            pair = [self._solved.get((label, seed)) for label in (comparison.label, comparison.reference)]
            if pair[0] is None or pair[1] is None:
                return
            ours.append(pair[0])
            theirs.append(pair[1])
            comparison.known = compare(ours, theirs, self._share, self.margin)


def verdict_lines(stopping: dict[str, Any]) -> list[str]:
    """Return a line on each comparison of `EarlyStop.summary`."""
    lines = []
    for one in stopping["comparisons"]:
        interval = f"{one['estimate']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
        said = {
            "higher": "higher success",
            "lower": "lower success",
            "equivalent": f"equal within {stopping['margin']:g}",
            "open": "undecided",
        }[one["verdict"]]
        lines.append(f"{one['condition']} against {one['reference']}: {said} after {one['pairs']} pairs, {interval}")
    return lines
