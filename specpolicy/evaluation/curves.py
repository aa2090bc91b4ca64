"""Plots of success: by condition, and against delay, execution horizon, machine speed, latency and budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specpolicy.evaluation.figures import (
    INK,
    LINES,
    MARKS,
    colours,
    interval,
    legend,
    new_figure,
    plain_ticks,
    success_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Conditions = Sequence[Mapping[str, Any]]


def outcome(summary: Mapping[str, Any], name: str, label: str) -> Figure:
    """Plot a dot with its interval for each condition."""
    conditions, palette = summary["conditions"], colours(summary)
    figure, (axes,) = new_figure(0.9 + 0.27 * len(conditions))
    for row, condition in enumerate(conditions):
        value, (colour, mark) = condition[name], palette[condition["sampler"]]
        axes.plot([value["low"], value["high"]], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(value["estimate"], row, mark, color=colour, markersize=6)
    axes.set_yticks(range(len(conditions)), [condition["label"] for condition in conditions])
    axes.set_ylim(len(conditions) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    played = sorted({condition.get("episodes", summary["episodes"]) for condition in conditions})
    number = " to ".join(map(str, dict.fromkeys((played[0], played[-1]))))
    axes.set_xlabel(f"{label} (95 % interval, {number} episodes)")
    axes.grid(visible=False, axis="y")
    return figure


def against_delay(summary: Mapping[str, Any], conditions: Conditions) -> Figure:
    """Plot success against delay, each with the shortest execution horizon it allows; below it, the uncovered steps."""
    step = "" if summary["hz"] is None else f" of {1e3 / summary['hz']:g} ms"
    return _over(summary, conditions, lambda condition: condition["delay"], f"delay in control steps{step}")


def against_horizon(summary: Mapping[str, Any], conditions: Conditions) -> Figure:
    """Plot success against the execution horizon, at one delay."""
    label = f"execution horizon in control steps, at a delay of {conditions[0]['delay']}"
    return _over(summary, conditions, lambda condition: condition["execute_steps"], label)


def against_factor(summary: Mapping[str, Any], conditions: Conditions) -> Figure:
    """Plot success against the factor on inference time."""
    label = "factor on the time of inference (0: the world waits)"
    return _over(
        summary, conditions, lambda condition: 0.0 if condition["clock"] == "paused" else condition["factor"], label
    )


def against_latency(summary: Mapping[str, Any], conditions: Conditions) -> Figure:
    """Plot success against the 95th percentile of the time per chunk, with the front of the best.

    Marks are hollow for conditions in which the world waits, if there are others.
    """
    palette = colours(summary)
    moving = [condition for condition in conditions if not _waits(condition)]
    figure, (axes,) = new_figure(3.8)
    decisive = moving or conditions
    front = _front(
        [(1e3 * condition["chunk_seconds"]["p95"], condition["success_rate"]["estimate"]) for condition in decisive]
    )
    axes.step(*zip(*front, strict=True), where="post", color="#BBBBBB", linewidth=1.2, zorder=1)
    for condition in conditions:
        colour, mark = _style(condition, conditions, palette)
        latency, rate = 1e3 * condition["chunk_seconds"]["p95"], condition["success_rate"]
        interval(axes, latency, rate, colour, mark, hollow=bool(moving) and _waits(condition))
    for condition in decisive:  # names beside the marks could overlap
        colour, mark = _style(condition, conditions, palette)
        axes.plot([], [], mark, color=colour, label=_name(condition, conditions))
    if moving and len(moving) < len(conditions):
        axes.plot([], [], "o", color=INK, markerfacecolor="white", label="hollow: the world waits")
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("95th percentile of the time per chunk in ms")
    success_axis(axes)
    plain_ticks(axes)
    legend(figure, axes)
    return figure


def against_budget(summary: Mapping[str, Any]) -> Figure:
    """Plot the success of each method at its best setting within a latency budget."""
    figure, (axes,) = new_figure(3.6)
    methods = list(dict.fromkeys(entry["method"] for entry in summary["budgets"]))
    palette = list(colours({"conditions": [{"sampler": name} for name in methods]}).values())
    for number, (name, (colour, mark)) in enumerate(zip(methods, palette, strict=True)):
        found = [entry for entry in summary["budgets"] if entry["method"] == name and entry["settings"]]
        dodge = 1.015 ** (number - (len(methods) - 1) / 2)
        places = [entry["budget_ms"] * dodge for entry in found]
        axes.plot(
            places,
            [entry["success_rate"]["estimate"] for entry in found],
            color=colour,
            marker=mark,
            markersize=5,
            linewidth=1.3,
            label=name if found else f"{name}: no budget suffices",
        )
        for place, entry in zip(places, found, strict=True):
            interval(axes, place, entry["success_rate"], colour, mark)
    axes.set_xscale("log")
    axes.set_xlim(*_around([entry["budget_ms"] for entry in summary["budgets"]]))
    axes.set_xlabel("latency budget in ms, for the 95th percentile of the time per chunk")
    success_axis(axes)
    plain_ticks(axes)
    legend(figure, axes)
    return figure


def _over(
    summary: Mapping[str, Any], conditions: Conditions, place: Callable[[Mapping[str, Any]], float], label: str
) -> Figure:
    """Plot one line per sampler and way of stitching, with intervals; below it, the steps without an action."""
    starved = any(condition["timing"]["starved_steps"] for condition in conditions)
    figure, axes = new_figure(4.6 if starved else 3.6, (3, 1) if starved else (1,))
    palette = colours(summary)
    stitchings = list(dict.fromkeys(condition["stitching"] for condition in conditions))
    lines = dict.fromkeys((condition["sampler"], condition["stitching"]) for condition in conditions)
    places = sorted({place(condition) for condition in conditions})
    span = (places[-1] - places[0]) or 1.0
    for number, (sampler, stitching) in enumerate(lines):
        own = [
            condition
            for condition in conditions
            if (condition["sampler"], condition["stitching"]) == (sampler, stitching)
        ]
        own.sort(key=place)
        shift = 0.009 * span * (number - (len(lines) - 1) / 2)  # shifted, so that the bars of all lines can be seen
        x = [place(condition) + shift for condition in own]
        colour, mark = palette[sampler]
        style: Any = LINES[stitchings.index(stitching) % len(LINES)]
        name = sampler if len(stitchings) == 1 else f"{sampler}, {stitching.replace('_', ' ')}"
        rates = [condition["success_rate"]["estimate"] for condition in own]
        axes[0].plot(x, rates, color=colour, linestyle=style, linewidth=1.3, marker=mark, markersize=5, label=name)
        for value, condition in zip(x, own, strict=True):
            interval(axes[0], value, condition["success_rate"], colour, mark)
        if starved:
            shares = [100 * (condition["timing"]["starved_share"] or 0.0) for condition in own]
            axes[1].plot(x, shares, color=colour, linestyle=style, linewidth=1.3, marker=mark, markersize=4)
    success_axis(axes[0])
    if starved:
        axes[1].set_ylim(bottom=0)
        axes[1].set_ylabel("steps without\nan action in %")
    axes[-1].set_xticks(places, [f"{value:g}" for value in places])
    axes[-1].set_xlabel(label)
    legend(figure, axes[0])
    return figure


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other point beats in both latency and success, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _waits(condition: Mapping[str, Any]) -> bool:
    return condition["clock"] == "paused" or (condition["clock"] == "delay" and condition["delay"] == 0)


def _name(condition: Mapping[str, Any], conditions: Conditions) -> str:
    several = len({other["stitching"] for other in conditions}) > 1
    return f"{condition['sampler']}, {condition['stitching'].replace('_', ' ')}" if several else condition["sampler"]


def _style(
    condition: Mapping[str, Any], conditions: Conditions, palette: Mapping[str, tuple[str, str]]
) -> tuple[str, str]:
    """Return colour and mark of a condition.

    The mark tells ways of stitching apart if there are several, else samplers that share a colour.
    """
    colour, mark = palette[condition["sampler"]]
    stitchings = list(dict.fromkeys(other["stitching"] for other in conditions))
    number = MARKS.index(mark) * len(stitchings) + stitchings.index(condition["stitching"])
    return colour, MARKS[number % len(MARKS)]


def _around(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 1.3, max(values) * 1.3
