"""Plots of `benchmarks/harness_pages.py`, over several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specpolicy.evaluation.figures import COLOURS, MARKS, interval, legend, new_figure, success_axis
from specpolicy.evaluation.plots import has_shortest_horizon

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Summaries = dict[str, dict[str, Any]]  # {task: summary}


def main_conditions(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions with the shortest execution horizon that their delay allows."""
    return [one for one in summary["conditions"] if has_shortest_horizon(one, summary["track"])]


def delay_figure(summaries: Summaries) -> Figure:
    """Plot success against delay, one line for each task."""
    figure, (axes,) = new_figure(3.8)
    widest = max(condition["delay"] for summary in summaries.values() for condition in main_conditions(summary))
    for number, (task, summary) in enumerate(summaries.items()):
        conditions = sorted(main_conditions(summary), key=lambda condition: condition["delay"])
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
        shift = 0.008 * widest * (number - (len(summaries) - 1) / 2)
        places = [condition["delay"] + shift for condition in conditions]
        rates = [condition["success_rate"]["estimate"] for condition in conditions]
        label = f"{task}, {summary['hz']:g} Hz"
        axes.plot(places, rates, color=colour, marker=mark, markersize=5, linewidth=1.3, label=label)
        for place, condition in zip(places, conditions, strict=True):
            interval(axes, place, condition["success_rate"], colour, mark)
    axes.set_xlabel("delay in control steps")
    success_axis(axes)
    legend(figure, axes)
    return figure


def equivalence_figure(summaries: Summaries) -> Figure:
    """Plot the 90 % intervals of the differences, and the margin."""
    lines = [(task, summary, one) for task, summary in summaries.items() for one in summary["differences"]]
    figure, (axes,) = new_figure(1.1 + 0.36 * len(lines))
    tasks = list(summaries)
    for row, (task, _, difference) in enumerate(lines):
        tests, colour = difference["equivalence"], COLOURS[tasks.index(task) % len(COLOURS)]
        ends = [100 * tests["low"], 100 * tests["high"]]
        axes.plot(ends, [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(100 * difference["success_rate"]["estimate"], row, "o", color=colour, markersize=6)
    margin = 100 * lines[0][1]["margin"]
    axes.axvspan(-margin, margin, color="#EEEEEE", zorder=0)
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [f"{task}: {one['condition']} – {one['reference']}" for task, _, one in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(f"difference in success in points (90 % interval; grey: margin of ±{margin:g})")
    return figure
