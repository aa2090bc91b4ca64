"""Common look of all plots: figures, one colour for each sampler, intervals, plain numbers on the axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; then the same colours with another mark.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))  # one mark for each way of stitching
INK, RULE = "#333333", "#E5E5E5"
WIDTH = 5.6  # inches, without the legend


def new_figure(height: float, rows: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes one above the other, with these relative heights and a common x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(rows)})
    for axes in grid[:, 0]:
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.grid(color=RULE)
    return figure, list(grid[:, 0])


def colours(summary: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return (colour, mark) for each sampler, the same in all plots."""
    labels = dict.fromkeys(condition["sampler"] for condition in summary["conditions"])
    return {
        label: (COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)])
        for number, label in enumerate(labels)
    }


def interval(axes: Axes, x: float, value: Mapping[str, float], colour: str, mark: str, hollow: bool = False) -> None:
    """Draw a mark at the estimate and a bar from `low` to `high`."""
    axes.plot([x, x], [value["low"], value["high"]], color=colour, linewidth=1.3, solid_capstyle="butt", alpha=0.8)
    face = "white" if hollow else colour
    axes.plot(x, value["estimate"], mark, color=colour, markersize=6, markerfacecolor=face, markeredgewidth=1.5)


def success_axis(axes: Axes) -> None:
    """Set up the y axis for a success rate."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("success rate (95 % interval)")


def legend(figure: Figure, axes: Axes) -> None:
    """Put the legend beside the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(
            handles, labels, loc="outside right upper", frameon=False, fontsize=8.5, labelcolor=INK, handlelength=2.6
        )
        figure.set_figwidth(WIDTH + 0.4 + 0.07 * max(map(len, labels)))


def plain_ticks(axes: Axes) -> None:
    """Write numbers such as 5 and 200 on a logarithmic x axis, even if it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    if high / low < 1000:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
