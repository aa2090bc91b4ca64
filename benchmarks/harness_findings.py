"""Findings of `specpolicy evaluate` runs in words and differences, for the pages of docs/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness_figures import Summaries, main_conditions

from specpolicy.evaluation.tables import NONE, probability, signed


def first_loss(summary: Mapping[str, Any]) -> str:
    """Return the smallest delay with a significant loss of success, in words."""
    labels = {condition["label"]: condition["delay"] for condition in main_conditions(summary)}
    lost = [
        labels[difference["condition"]]
        for difference in summary["differences"]
        if difference["kind"] == "circumstances"
        and difference["condition"] in labels
        and difference["success_rate"]["high"] < 0
    ]
    return f"d = {min(lost)}" if lost else "none"


def changes(summaries: Summaries, delays: Sequence[int]) -> list[list[str]]:
    """Return the change at each delay, one row for each task."""
    rows = []
    for task, summary in summaries.items():
        label = {condition["delay"]: condition["label"] for condition in main_conditions(summary)}
        found = {one["condition"]: one for one in summary["differences"] if one["kind"] == "circumstances"}
        pairs = [found.get(label.get(delay, "")) for delay in delays]
        cells = [
            f"{signed(pair['success_rate'])}, p {probability(pair['success_p_value'])}" if pair else NONE
            for pair in pairs
        ]
        rows.append([task, *cells])
    return rows


def verdicts(summary: Mapping[str, Any]) -> list[str]:
    """Say how much success each sampler loses when the world moves on, and compare recycled with DDIM-10."""
    conditions = {condition["label"]: condition for condition in summary["conditions"]}
    lines = []
    for difference in summary["differences"]:
        condition, reference = conditions[difference["condition"]], conditions[difference["reference"]]
        change = signed(difference["success_rate"])
        if difference["kind"] == "circumstances":
            before, after = reference["success_rate"]["estimate"], condition["success_rate"]["estimate"]
            low, high = difference["success_rate"]["low"], difference["success_rate"]["high"]
            said = "a loss" if high < 0 else "a gain" if low > 0 else "no difference shown"
            lines.append(
                f"{condition['sampler']}, {said}: {before:.2f} where the world waits, {after:.2f} where not, {change}"
            )
        elif condition["method"] == "recycled" and reference["method"] == "ddim" and condition["clock"] != "paused":
            lines.append(f"{difference['condition']} minus {difference['reference']}: {change}")
    return lines
