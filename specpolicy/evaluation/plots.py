"""All plots of an evaluation that its results allow, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.evaluation import cost_plots, curves
from specpolicy.evaluation.tables import has_network
from specpolicy.evaluation.tracks import shortest_horizon
from specpolicy.files import atomic_path

MOST_CONDITIONS = 24  # one figure for each


def write_plots(
    summary: Mapping[str, Any], figures: Mapping[str, Mapping[str, np.ndarray]], output: Path
) -> dict[str, str]:
    """Draw all plots that the results allow and return {title: file name}, the most informative first.

    Args:
        summary: see `summarise`.
        figures: {sampler: {"seconds": (M,), "calls": (M,)}} of every chunk, `calls` where known; see `chunk_figures`.
        output: directory for the files.
    """
    plots = {**_success(summary), **_costs(summary, figures)}
    files = {}
    for title, figure in plots.items():
        files[title] = f"plot_{title.lower().replace(' ', '_')}.png"
        with atomic_path(output / files[title]) as temporary:
            figure.savefig(temporary, dpi=160)
    return files


def _success(summary: Mapping[str, Any]) -> dict[str, Any]:
    conditions, track = summary["conditions"], summary["track"]
    policies = [condition for condition in conditions if has_network(condition)]
    delayed = [condition for condition in policies if condition["clock"] == "delay"]
    plots: dict[str, Any] = {}
    main = [condition for condition in delayed if has_shortest_horizon(condition, track)]
    if len({condition["delay"] for condition in main}) > 1:
        plots["Success against delay"] = curves.against_delay(summary, main)
    swept = [condition for condition in delayed if condition["delay"] == track["swept_at"]]
    if len({condition["execute_steps"] for condition in swept}) > 1:
        plots["Success against execution horizon"] = curves.against_horizon(summary, swept)
    if summary["budgets"]:
        plots["Success against latency budget"] = curves.against_budget(summary)
    factors = {condition["factor"] for condition in policies if condition["clock"] not in ("paused", "delay")}
    factor = 1.0 if 1.0 in factors else max(factors, default=1.0)
    least = min((condition["delay"] for condition in main), default=0)
    timed = [
        condition
        for condition in policies
        if condition["clock"] == "paused" or (condition["clock"] != "delay" and condition["factor"] == factor)
    ]
    timed += [condition for condition in main if condition["delay"] == least]
    if timed:
        plots["Success against latency"] = curves.against_latency(summary, timed)
    if len(factors) > 1:
        plots["Success against machine speed"] = curves.against_factor(summary, policies)
    if len(conditions) <= MOST_CONDITIONS:
        plots["Success rate"] = curves.outcome(summary, "success_rate", "success rate")
        if all(condition["max_coverage"] for condition in conditions):
            plots["Maximum coverage"] = curves.outcome(summary, "max_coverage", "mean maximum coverage")
    return plots


def _costs(summary: Mapping[str, Any], figures: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    seconds, calls = (
        {label: columns[name] for label, columns in figures.items() if name in columns} for name in ("seconds", "calls")
    )
    plots = {}
    if seconds:
        plots["Time per chunk"] = cost_plots.latency_histograms(summary, seconds)
    if calls:
        plots["Calls per chunk"] = cost_plots.calls_per_chunk(summary, calls)
    return plots


def has_shortest_horizon(condition: Mapping[str, Any], track: Mapping[str, Any]) -> bool:
    """Whether a condition has the shortest execution horizon that its delay allows."""
    horizon = shortest_horizon(condition["delay"], condition.get("in_flight", 1), track["execute_steps"])
    return bool(condition["execute_steps"] == horizon)
