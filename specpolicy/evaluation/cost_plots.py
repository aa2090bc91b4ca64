"""Plots of cost per chunk: the distribution of its time, and its network calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.evaluation.figures import INK, colours, new_figure, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60


def latency_histograms(summary: Mapping[str, Any], seconds: Mapping[str, np.ndarray]) -> Figure:
    """Plot a histogram of the time per chunk for each sampler, one above the other, with the 95th percentile marked."""
    figure, axes = new_figure(0.8 + 0.62 * len(seconds), [1] * len(seconds))
    joined = 1e3 * np.concatenate(list(seconds.values()))
    # On a logarithmic axis no time at all stands at its left end.
    least = joined[joined > 0].min(initial=np.inf)
    low, high = (least / 1.15, joined.max() * 1.15) if np.isfinite(least) else (0.5, 2.0)
    edges = np.geomspace(low, high, BINS + 1)
    palette = colours(summary)
    for panel, (label, values) in zip(axes, seconds.items(), strict=True):
        colour, _ = palette[label]
        panel.hist(np.maximum(1e3 * values, low), bins=edges, color=colour, alpha=0.75)  # type: ignore[arg-type]
        panel.set_ylim(0, 1.5 * panel.get_ylim()[1])  # room for the text
        p95 = 1e3 * float(np.quantile(values, 0.95))
        at = max(p95, low)
        panel.axvline(at, color=INK, linewidth=1)
        beside = "right" if p95 > np.sqrt(low * high) else "left"
        panel.annotate(
            f"p95 {p95:.3g} ms",
            (at, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if beside == "right" else 5, 0),
            textcoords="offset points",
            ha=beside,
            va="top",
            color=INK,
            fontsize=8,
        )
        panel.set_xscale("log")
        panel.set_xlim(low, high)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.set_ylabel(label, rotation=0, ha="right", va="center")
        panel.grid(visible=False, axis="y")
    axes[-1].set_xlabel("time per chunk in ms (height: share of the sampler's chunks)")
    plain_ticks(axes[-1])
    return figure


def calls_per_chunk(summary: Mapping[str, Any], calls: Mapping[str, np.ndarray]) -> Figure:
    """Plot each sampler's mean number of network calls, with a bar that covers 90 % of the chunks."""
    figure, (axes,) = new_figure(0.9 + 0.36 * len(calls))
    palette = colours(summary)
    for row, (label, values) in enumerate(calls.items()):
        colour, mark = palette[label]
        low, high = np.quantile(values, [0.05, 0.95])
        axes.plot([low, high], [row, row], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot(values.mean(), row, mark, color=colour, markersize=6)
        axes.annotate(
            f"{values.mean():.3g}",
            (values.mean(), row),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_yticks(range(len(calls)), list(calls))
    axes.set_ylim(len(calls) - 0.4, -0.7)
    axes.set_xlabel("sequential network calls per chunk (mark: mean, bar: 5 to 95 %)")
    axes.grid(visible=False, axis="y")
    plain_ticks(axes)
    return figure
