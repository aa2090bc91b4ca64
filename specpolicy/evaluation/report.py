"""`report.html`: the summary as a page to show to a colleague, with its plots and videos beside it."""

import datetime
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specpolicy.files import write_text


def write_report(summary: Mapping[str, Any], plots: Mapping[str, str], output: Path) -> Path:
    """Write the report and return its path.

    Args:
        summary: see `summarise`.
        plots: {title: file name in `output`}.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("specpolicy.evaluation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"interval": _interval, "signed": _signed, "milliseconds": _milliseconds, "wrap": _wrap}
    page = environment.get_template("report.html.jinja").render(
        summary=summary,
        plots=plots,
        has_coverage=any(sampler["max_coverage"] for sampler in summary["samplers"]),
        has_reward=any(sampler["return"]["estimate"] for sampler in summary["samplers"]),
        has_videos=any(sampler["videos"] for sampler in summary["samplers"]),
        date=datetime.date.today().isoformat(),
    )
    path = output / "report.html"
    write_text(path, page)
    return path


def text_table(summary: Mapping[str, Any]) -> str:
    """The summary as a few lines for a terminal."""
    table = result_table(summary)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def result_table(summary: Mapping[str, Any]) -> list[list[str]]:
    """The most important figures: a heading, then a row per sampler."""
    has_coverage = any(sampler["max_coverage"] for sampler in summary["samplers"])
    head = ["sampler", "solved", "success rate", *(["max coverage"] if has_coverage else []), "steps"]
    table = [[*head, "ms per chunk p50", "p95", "calls", "network"]]
    for sampler in summary["samplers"]:
        coverage = [_interval(sampler["max_coverage"])] if has_coverage else []
        seconds = sampler["chunk_seconds"] if sampler["calls"] else None
        times = [_milliseconds(seconds[name]) for name in ("p50", "p95")] if seconds else ["-", "-"]
        cost = [f"{sampler['calls']:.4g}", f"{sampler['network_share']:.0%}"] if seconds else ["-", "-"]
        solved = f"{sampler['successes']}/{sampler['episodes']}"
        length = f"{sampler['length']['estimate']:.0f}"
        table.append([sampler["label"], solved, _interval(sampler["success_rate"]), *coverage, length, *times, *cost])
    return table


def _interval(value: Mapping[str, float] | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value['estimate']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _signed(value: Mapping[str, float] | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value['estimate']:+.{digits}f} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]"


def _milliseconds(seconds: float) -> str:
    """Three significant figures without an exponent."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _wrap(command: str) -> str:
    """A long command over several lines that a shell still reads."""
    lines = textwrap.wrap(command, 96, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines)
