"""What the runs of `specpolicy evaluate` say, in words and differences, for the pages of docs/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness_figures import Summaries, main_arms

from specpolicy.evaluation.tables import NONE, probability, signed


def first_loss(summary: Mapping[str, Any]) -> str:
    """The smallest delay that costs success beyond doubt."""
    labels = {arm["label"]: arm["delay"] for arm in main_arms(summary)}
    lost = [
        labels[difference["arm"]]
        for difference in summary["differences"]
        if difference["kind"] == "condition" and difference["arm"] in labels and difference["success_rate"]["high"] < 0
    ]
    return f"d = {min(lost)}" if lost else "none"


def changes(summaries: Summaries, delays: Sequence[int]) -> list[list[str]]:
    """What each delay changes, a row for each task."""
    rows = []
    for task, summary in summaries.items():
        label = {arm["delay"]: arm["label"] for arm in main_arms(summary)}
        found = {one["arm"]: one for one in summary["differences"] if one["kind"] == "condition"}
        pairs = [found.get(label.get(delay, "")) for delay in delays]
        cells = [
            f"{signed(pair['success_rate'])}, p {probability(pair['success_p_value'])}" if pair else NONE
            for pair in pairs
        ]
        rows.append([task, *cells])
    return rows


def verdicts(summary: Mapping[str, Any]) -> list[str]:
    """What each sampler loses to its own success in a world that waits; and recycled against DDIM-10."""
    arms = {arm["label"]: arm for arm in summary["arms"]}
    lines = []
    for difference in summary["differences"]:
        arm, reference = arms[difference["arm"]], arms[difference["reference"]]
        change = signed(difference["success_rate"])
        if difference["kind"] == "condition":
            before, after = reference["success_rate"]["estimate"], arm["success_rate"]["estimate"]
            low, high = difference["success_rate"]["low"], difference["success_rate"]["high"]
            said = "a loss" if high < 0 else "a gain" if low > 0 else "no difference shown"
            lines.append(
                f"{arm['sampler']}, {said}: {before:.2f} where the world waits, {after:.2f} where not, {change}"
            )
        elif arm["method"] == "recycled" and reference["method"] == "ddim" and arm["clock"] != "paused":
            lines.append(f"{difference['arm']} minus {difference['reference']}: {change}")
    return lines
