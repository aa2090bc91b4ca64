"""Plots of an evaluation as PNG files: outcomes per sampler, time per chunk, success against latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
INK = "#333333"


def write_plots(summary: Mapping[str, Any], chunk_seconds: Mapping[str, np.ndarray], output: Path) -> dict[str, str]:
    """Draw all plots that the results allow; returns {title: file name}.

    Args:
        summary: see `summarise`.
        chunk_seconds: label: (M,) seconds of every chunk.
    """
    samplers = summary["samplers"]
    plots: dict[str, Any] = {"Success rate": _outcome(samplers, "success_rate", "success rate", (0, 1))}
    if all(sampler["max_coverage"] for sampler in samplers):
        plots["Maximum coverage"] = _outcome(samplers, "max_coverage", "mean maximum coverage", (0, 1))
    timed = [sampler for sampler in samplers if sampler["calls"]]  # a scripted expert calls no network
    if timed:
        plots["Time per chunk"] = _times({sampler["label"]: chunk_seconds[sampler["label"]] for sampler in timed})
        plots["Success against latency"] = _tradeoff(timed)
    files = {}
    for title, figure in plots.items():
        files[title] = f"plot_{title.lower().replace(' ', '_')}.png"
        with atomic_path(output / files[title]) as temporary:
            figure.savefig(temporary, dpi=160)
    return files


def _outcome(samplers: list[Mapping[str, Any]], name: str, label: str, limits: tuple[float, float]) -> Figure:
    """A dot with its interval per sampler."""
    figure, axes = _figure(1.1 + 0.5 * len(samplers))
    for row, sampler in enumerate(samplers):
        value = sampler[name]
        axes.plot([value["low"], value["high"]], [row, row], color=_colour(row), linewidth=2, solid_capstyle="butt")
        axes.plot(value["estimate"], row, "o", color=_colour(row), markersize=7)
    axes.set_yticks(range(len(samplers)), [sampler["label"] for sampler in samplers])
    axes.set_ylim(len(samplers) - 0.4, -0.6)
    axes.set_xlim(limits[0] - 0.02, limits[1] + 0.02)
    axes.set_xlabel(f"{label} (95 % interval, {samplers[0]['episodes']} episodes)")
    axes.grid(axis="x", color="#E5E5E5")
    return figure


def _times(chunk_seconds: Mapping[str, np.ndarray]) -> Figure:
    """A box (quartiles, whiskers at 5 and 95 %) per sampler with every chunk as a point beside it."""
    figure, axes = _figure(1.1 + 0.5 * len(chunk_seconds))
    rng = np.random.default_rng(0)  # only scatters the points across their strip
    for row, seconds in enumerate(chunk_seconds.values()):
        shown = 1e3 * (seconds if len(seconds) <= 2000 else rng.choice(seconds, 2000, replace=False))
        height = row + 0.30 + rng.uniform(-0.08, 0.08, len(shown))
        axes.plot(shown, height, ".", color=_colour(row), markersize=2, alpha=0.35, markeredgewidth=0)
        box = axes.boxplot(
            1e3 * seconds,
            positions=[row],
            orientation="horizontal",
            widths=0.3,
            whis=(5, 95),
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
        )
        for part in ("boxes", "whiskers", "caps", "medians"):
            for line in box[part]:
                line.set_color(_colour(row))
        box["boxes"][0].set_facecolor("white")
    axes.set_xscale("log")
    axes.set_yticks(range(len(chunk_seconds)), list(chunk_seconds))
    axes.set_ylim(len(chunk_seconds) - 0.4, -0.5)
    axes.set_xlabel("time per chunk in ms (box: quartiles, whiskers: 5 and 95 %)")
    _plain_ticks(axes)
    axes.grid(axis="x", color="#E5E5E5")
    return figure


def _tradeoff(samplers: list[Mapping[str, Any]]) -> Figure:
    """Success rate with its interval over the 95th percentile of the time per chunk."""
    figure, axes = _figure(3.0)
    for row, sampler in enumerate(samplers):
        latency, rate = 1e3 * sampler["chunk_seconds"]["p95"], sampler["success_rate"]
        axes.plot([latency] * 2, [rate["low"], rate["high"]], color=_colour(row), linewidth=2, solid_capstyle="butt")
        axes.plot(latency, rate["estimate"], "o", color=_colour(row), markersize=7)
        axes.annotate(
            sampler["label"],
            (latency, rate["estimate"]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=_colour(row),
        )
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("95th percentile of the time per chunk in ms")
    axes.set_ylabel("success rate (95 % interval)")
    _plain_ticks(axes)
    axes.grid(color="#E5E5E5")
    return figure


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _plain_ticks(axes: Axes) -> None:
    """Numbers such as 5 and 200 on a logarithmic axis, also where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    if high / low < 100:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _colour(row: int) -> str:
    return COLOURS[row % len(COLOURS)]
