"""The figures of a benchmark as a table: for a terminal, and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = (
    "sampler",
    "distribution",
    "window; drafts",
    "calls",
    "p50",
    "p95",
    "p99",
    "rows",
    "ms",
    "p50",
    "p95",
    "p99",
    "encoding, ms",
    "outside network",
    "launches outside (a call)",
    "waits (a call)",
    "calls alone, ms",
)


def result_table(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return a heading, then a row per sampler."""
    table = [[*HEAD, f"calls alone / {summary['reference']}", f"time / {summary['reference']}"]]
    for sampler in summary["samplers"]:
        calls, seconds, ratio, bound = sampler["calls"], sampler["seconds"], sampler["ratio"], sampler["bound"]
        table.append(
            [
                sampler["label"],
                sampler["distribution"],
                sampler["window"] or "-",
                f"{calls['mean']:.4g}",
                *(f"{calls[name]:.0f}" for name in ("p50", "p95", "p99")),
                f"{sampler['rows']['mean']:.0f}",
                *(milliseconds(seconds[name]) for name in ("mean", "p50", "p95", "p99")),
                _encoding(sampler),
                f"{sampler['outside_share']:.0%}",
                *(_per_round(sampler["launches"], name) for name in ("outside", "waits")),
                milliseconds(bound["seconds"]),
                f"{bound['ratio']:.2f}",
                f"{ratio['p50']:.2f} [{ratio['p25']:.2f}, {ratio['p75']:.2f}]",
            ]
        )
    return table


def brief_table(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return the columns that fit into a terminal: distribution, network calls, milliseconds, and their ratios."""
    sees = bool(summary["network"].get("encoder_parameters"))  # an encoder without weights takes no time worth a column
    head = ["sampler", "distribution", "calls", "p95", "ms p50", "p95", *["encoding"] * sees]
    table = [[*head, f"time / {summary['reference']}"]]
    for sampler in summary["samplers"]:
        calls, seconds = sampler["calls"], sampler["seconds"]
        found = [sampler["label"], sampler["distribution"], f"{calls['mean']:.4g}", f"{calls['p95']:.0f}"]
        found += [milliseconds(seconds["p50"]), milliseconds(seconds["p95"]), *[_encoding(sampler)] * sees]
        found.append(f"{sampler['ratio']['p50']:.2f}")
        table.append(found)
    return table


def _encoding(sampler: Mapping[str, Any]) -> str:
    """Return the median milliseconds of encoding an observation; results of before have none."""
    return milliseconds(sampler["encode_seconds"]["p50"]) if "encode_seconds" in sampler else "-"


def _per_round(launches: Mapping[str, int], name: str) -> str:
    """Return the number per chunk and, in brackets, per call: "312 (24)"."""
    return f"{launches[name]} ({launches[name] / launches['calls']:.3g})"


def _extent(summary: Mapping[str, Any]) -> str:
    if summary.get("tokens"):
        return f"whose chunks have {summary['tokens']} tokens"
    return f"whose chain has {summary['steps']} steps"


def notes(summary: Mapping[str, Any], brief: bool = False) -> list[str]:
    """Return notes for readers of the table, a sentence or two each; `brief`: of `brief_table`."""
    network, machine = summary["network"], summary["machine"]
    place = machine["gpu"] if summary["device"].startswith("cuda") else machine["cpu"]
    lines = [
        f"{_count(summary['chunks'], 'chunk')} of each sampler, batch size 1, on recorded observations of "
        f"{summary['policy']['path']}, {_extent(summary)}. Samplers take turns on each "
        "observation.",
        f"A network of {network['parameters'] / 1e6:.3g} M parameters on {place}, "
        f"{_count(summary['threads'], 'thread')}, engine {summary['engine']}, {summary['precision']}; load of the "
        f"machine before: {summary['load']}.",
    ]
    if not network["trained"]:
        lines.append(
            "Its weights are random: time in the network is its own, calls and rows are those of the trained policy, "
            "whose network answers each call, untimed, while the other one is called with as many rows."
        )
    if network.get("encoder_parameters"):
        lines.append(
            f"Observations are encoded once a chunk, by {network['encoder_parameters'] / 1e6:.3g} M parameters; ms "
            "include it. Here all frames are new: where a loop asks at every step, only the newest is."
        )
    if brief:
        return [*lines, "The last column is the median of the ratio of the two times on one observation."]
    lines.append(
        "Quantiles of calls and of ms are over chunks. The last column is the median, with quartiles, of the ratio of "
        "the two times on one observation."
    )
    lines.append(
        "Calls alone: what the network would take for the same calls with nothing between them, by the time of a call "
        "of so many rows; no sampler of these calls can be faster here. Launches outside the network and waits for the "
        "device: operations of torch for one chunk, in brackets for one call, counted once. What runs in numpy, as "
        "drawing one chunk on a CPU does, launches none."
    )
    return lines


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return the table in Markdown."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def rows_table(seconds_by_rows: Mapping[Any, float]) -> list[list[str]]:
    """Return rows of milliseconds of one call by its number of rows, and the ratio to one row's."""
    sizes = sorted(seconds_by_rows, key=int)
    first = seconds_by_rows[sizes[0]]
    return [
        ["rows of a call", *(str(size) for size in sizes)],
        ["ms", *(milliseconds(seconds_by_rows[size]) for size in sizes)],
        ["/ 1 row", *(f"{seconds_by_rows[size] / first:.3g}" for size in sizes)],
    ]


def milliseconds(seconds: float) -> str:
    """Format with three significant figures and no exponent."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
