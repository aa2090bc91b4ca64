"""Writes the files of a benchmark: `chunks.csv`, `table.md`, `summary.json`."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from specpolicy.benchmarking.measure import Draw
from specpolicy.benchmarking.table import markdown_table, notes, result_table, rows_table
from specpolicy.files import write_text

COLUMNS = ("sampler", "observation", "seconds", "network_seconds", "encode_seconds", "calls", "rows", "call_rows")
SUMMARY = "summary.json"


def write_report(summary: Mapping[str, Any], draws: Iterable[Draw], output: Path) -> None:
    """Write the files. summary.json is written last, so where it exists, the other files are of the same run.

    `summary`: the result of `summarise`, with `policy`, `network`, `machine`, `steps`, `device`, `threads`, `engine`,
    `precision`, `load` and `command`.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / SUMMARY).unlink(missing_ok=True)
    write_text(output / "chunks.csv", chunk_lines(draws))
    write_text(output / "table.md", page(summary))
    write_text(output / SUMMARY, json.dumps(summary, indent=2) + "\n")


def chunk_lines(draws: Iterable[Draw]) -> str:
    """Return the lines of chunks.csv: a row per chunk, in the order in which they were drawn.

    With its columns `sampler` and `seconds` this is a latency trace that `specpolicy control` can replay.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for draw in draws:
        sizes = " ".join(map(str, draw.call_rows))
        seconds = draw.seconds, draw.network_seconds, draw.encode_seconds
        writer.writerow([draw.sampler, draw.observation, *seconds, draw.calls, draw.rows, sizes])
    return text.getvalue()


def page(summary: Mapping[str, Any]) -> str:
    """Return table.md: the table, notes for its reader, and the command behind it."""
    parts = [
        markdown_table(result_table(summary)),
        *notes(summary),
        "One call of the network:",
        markdown_table(rows_table(summary["seconds_by_rows"])),
        f"```\n{summary['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"
