"""Write the tables of docs/results/samplers.md from the results of benchmarks/samplers.sh.

    python benchmarks/samplers_tables.py outputs/benchmark/samplers docs/results/samplers.md

Only the part between the two marks of the file is replaced; a missing file is created.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specpolicy.benchmarking.report import SUMMARY
from specpolicy.benchmarking.table import markdown_table, milliseconds, notes, result_table, rows_table
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text

BEGIN, END = "<!-- tables of benchmarks/samplers.sh: begin -->", "<!-- end -->"
FRAME = f"""# What a chunk costs

Calls, rows and time of the samplers on the shipped policies, on observations that nothing was trained or calibrated on.
`benchmarks/samplers.sh` measures all of it and writes the tables.

{BEGIN}
{END}
"""
KINDS = ("calls", "time", "large", "mip")  # the last: a minimal iterative policy of the task, the network the same
Runs = dict[str, dict[str, Any]]  # {policy: summary} of one kind of run


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: samplers_tables.py RESULTS FILE.md", file=sys.stderr)
        return 2
    try:
        write(Path(arguments[0]), Path(arguments[1]))
    except SpecpolicyError as error:
        print(f"samplers_tables: {error}", file=sys.stderr)
        return 2
    return 0


def write(results: Path, page: Path) -> None:
    """Replace the tables of `page`."""
    tables = "\n\n".join(sections(read(results)))
    text = page.read_text(encoding="utf-8") if page.exists() else FRAME
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SpecpolicyError(f"{page} lacks the marks '{BEGIN}' and '{END}': put them where the tables belong")
    write_text(page, f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")


def read(results: Path) -> dict[str, Runs]:
    """Return the summaries by kind of run ("calls", "time-eager", "large-openvino"), then by policy."""
    found: dict[str, Runs] = {}
    for first in KINDS:
        for path in sorted([*results.glob(f"*/{first}/{SUMMARY}"), *results.glob(f"*/{first}-*/{SUMMARY}")]):
            runs = found.setdefault(path.parent.name, {})
            runs[path.parent.parent.name] = json.loads(path.read_text(encoding="utf-8"))
    if not found:
        raise SpecpolicyError(f"{results} holds no results: run benchmarks/samplers.sh")
    return found


def sections(found: dict[str, Runs]) -> list[str]:
    """Return the page's sections: for each kind of run the tables over all policies, then every run's own table."""
    parts = choices(found)
    for kind, runs in found.items():
        what, _, engine = kind.partition("-")
        some = next(iter(runs.values()))
        if what == "mip":
            continue  # a row of the table of times
        if what == "calls":
            parts += ["## Calls", "Mean calls of a chunk, in brackets the 99th percentile, then the mean of rows."]
            parts.append(across(runs, _calls))
        else:
            size = some["network"]["parameters"] / 1e6
            title = "Time" if what == "time" else f"Time with a network of {size:.3g} M parameters"
            parts += [f"## {title}, engine {engine}"]
            parts.append(
                f"Mean ms of a chunk, in brackets what its calls alone would take; median of the ratio to "
                f"{some['reference']}, in brackets that of the calls alone; share outside the network."
            )
            opponents = found.get(f"mip-{engine}", {}) if what == "time" else {}
            parts.append(across({policy: with_opponent(runs[policy], opponents.get(policy)) for policy in runs}, _time))
    parts.append("## Every run")
    for kind, runs in found.items():
        for policy, summary in runs.items():
            parts += [
                f'<details markdown="1"><summary>{policy}, {kind}</summary>',
                markdown_table(result_table(summary)),
                *notes(summary),
                markdown_table(rows_table(summary["seconds_by_rows"])),
                f"```\n{summary['command']}\n```",
                "</details>",
            ]
    return parts


def with_opponent(summary: dict[str, Any], opponent: dict[str, Any] | None) -> dict[str, Any]:
    """Return a summary with a row more: the sequential sampler of another policy, measured in a run of its own."""
    if opponent is None:
        return summary
    entry = opponent["samplers"][0]
    reference = next(one for one in summary["samplers"] if one["label"] == summary["reference"])
    ratio = {"p50": entry["seconds"]["p50"] / reference["seconds"]["p50"]}
    bound = {**entry["bound"], "ratio": entry["bound"]["seconds"] / reference["bound"]["seconds"]}
    return {**summary, "samplers": [*summary["samplers"], {**entry, "label": "MIP", "ratio": ratio, "bound": bound}]}


def choices(found: dict[str, Runs]) -> list[str]:
    """Say what to choose, for each engine and size of network that was timed.

    Names the exact sampler that is fastest on most policies, and compares it with the sequential one and with DDIM. Of
    the chain of 16 steps the sequential sampler is one of those to choose from.
    """
    rows = [["engine", "parameters", "whole chain: fastest exact", "its time / ddpm"]]
    rows[0] += ["16 steps: fastest", "its time / ddim-10", "recycled-16 / ddim-10"]
    for kind, runs in found.items():
        what, _, engine = kind.partition("-")
        if what in ("calls", "mip"):
            continue
        some, exact, short = next(iter(runs.values())), list[str](), list[str]()
        for summary in runs.values():
            seconds = {entry["label"]: entry["seconds"]["p50"] for entry in summary["samplers"]}
            whole = [label for label in seconds if label not in (summary["reference"], "ddim-10") and _whole(label)]
            exact.append(min(whole, key=seconds.__getitem__))
            few = [label for label in seconds if not _whole(label)]
            short += [min(few, key=seconds.__getitem__)] if few else []
        best = _most(exact)
        size, steps = f"{some['network']['parameters'] / 1e6:.3g} M", some["steps"]
        first = _spread(runs, best, some["reference"])
        row = [engine, size, _counted(best, exact), first]
        if short and steps != 16:
            row += [_counted(_most(short), short), _spread(runs, _most(short), "ddim-10")]
            row.append(_spread(runs, "recycled-16", "ddim-10"))
        rows.append([*row, *["-"] * (len(rows[0]) - len(row))])
    if len(rows) == 1:
        return []
    return [
        "## Which one to choose",
        "Medians of a chunk's time, the least and the largest of the policies. Above 1 the sequential sampler, or DDIM "
        "is faster here, and an exact sampler is chosen for its distribution alone.",
        markdown_table(rows),
    ]


def _most(labels: list[str]) -> str:
    """Return the label that is there most often."""
    return max(dict.fromkeys(labels), key=labels.count)


def _counted(label: str, labels: list[str]) -> str:
    return f"{label} ({labels.count(label)} of {len(labels)} policies)"


def _whole(label: str) -> bool:
    """Whether a label is of the policy's own chain: "recycled-100" and "asd" are, "recycled-16" is not."""
    return not label.endswith("-16")


def _spread(runs: Runs, label: str, reference: str) -> str:
    """Return the range of ratios of two samplers' median times, such as "0.52 to 0.91"."""
    found = []
    for summary in runs.values():
        seconds = {entry["label"]: entry["seconds"]["p50"] for entry in summary["samplers"]}
        if label in seconds and reference in seconds:
            found.append(seconds[label] / seconds[reference])
    if not found:
        return "-"
    return " to ".join(f"{ratio:.2f}" for ratio in sorted({min(found), max(found)}))


def across(runs: Runs, cell: Callable[[dict[str, Any]], str]) -> str:
    """Return a table with one row per sampler and one column per policy."""
    labels = list(dict.fromkeys(entry["label"] for summary in runs.values() for entry in summary["samplers"]))
    entries = {policy: {entry["label"]: entry for entry in summary["samplers"]} for policy, summary in runs.items()}
    rows = [["sampler", *runs]]
    for label in labels:
        rows.append([label, *(cell(own[label]) if label in own else "-" for own in entries.values())])
    return markdown_table(rows)


def _calls(entry: dict[str, Any]) -> str:
    return f"{entry['calls']['mean']:.2f} ({entry['calls']['p99']:.0f}), {entry['rows']['mean']:.0f}"


def _time(entry: dict[str, Any]) -> str:
    seconds, bound = milliseconds(entry["seconds"]["mean"]), entry["bound"]
    ratio = f"{entry['ratio']['p50']:.2f} ({bound['ratio']:.2f})"
    return f"{seconds} ({milliseconds(bound['seconds'])}) ms; {ratio}; {entry['outside_share']:.0%}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
