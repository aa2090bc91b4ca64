"""Write the part of docs/results/delay.md that takes the loss apart, from the evaluations of delay_causes.sh.

    python benchmarks/delay_causes.py outputs/benchmarks/delay_causes docs/results/delay.md

Reads <results>/<task>/<policy>/<run>/episodes.csv. The differences are paired by seed, to the same policy without a
delay. Only the part between the script's two marks is replaced.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness_pages import made, markdown
from played import difference, rate, write_page

from specpolicy.errors import SpecpolicyError

BEGIN = "<!-- written by benchmarks/delay_causes.sh: begin -->"
HEAD = ["task", "policy", "episodes", "delay", "steps of a chunk", "how", "success", "to no delay", "jump at a switch"]
ORACLE = "arm_known"
Rows = list[dict[str, str]]


def main(arguments: list[str]) -> int:
    return write_page("delay_causes", arguments, BEGIN, body)


def body(results: Path) -> str:
    """Return the measured part of the page."""
    return "\n\n".join([markdown([HEAD, *table(results)]), made(_summaries(results))])


def table(results: Path) -> Iterator[list[str]]:
    """Yield a row for each condition of each run.

    Raises:
        SpecpolicyError: no results, or none without a delay to compare with.
    """
    found = {path.parent.parent for path in results.glob("*/*/*/episodes.csv")}
    policies = sorted(found, key=lambda path: (path.parent.name, path.name != "shipped", path.name))
    if not policies:
        raise SpecpolicyError(f"{results} holds no results: run benchmarks/delay_causes.sh")
    for policy in policies:
        runs = _on_same_seeds({path.parent.name: _conditions(path) for path in policy.glob("*/episodes.csv")})
        reference = next(
            (rows for rows in runs.get("delay", {}).values() if int(rows[0]["delay"]) == 0 and _is_own(rows)), None
        )
        if reference is None:
            raise SpecpolicyError(f"{policy}/delay has no condition without a delay to compare with")
        for run in sorted(runs, key=lambda name: (name != "delay", name == ORACLE, name)):
            for rows in runs[run].values():
                yield [policy.parent.name, policy.name, *_row(run, rows, reference)]


def _row(run: str, rows: Rows, reference: Rows) -> list[str]:
    known, flight = run == ORACLE, rows[0]["condition"].endswith("in flight")
    jumps = [float(row["switch_jump_mean"]) for row in rows if row["switch_jump_mean"]]
    return [
        str(len(rows)),
        "4, of the scene alone" if known else rows[0]["delay"],
        rows[0]["execute_steps"],
        "an oracle knows the arm" if known else rows[0]["stitching"] + ", 2 in flight" * flight,
        rate(_solved(rows)),
        "" if rows is reference else difference(_solved(rows), _solved(reference)),
        f"{np.mean(jumps):.2f}" if jumps else "",
    ]


def _solved(rows: Rows) -> dict[str, bool]:
    return {row["seed"]: bool(int(row["success"])) for row in rows}


def _on_same_seeds(runs: dict[str, dict[str, Rows]]) -> dict[str, dict[str, Rows]]:
    """Leave out the episodes of seeds that not every condition of a policy has played."""
    played = [{row["seed"] for row in rows} for run in runs.values() for rows in run.values()]
    seeds = set.intersection(*played)
    return {
        name: {label: [row for row in rows if row["seed"] in seeds] for label, rows in run.items()}
        for name, run in runs.items()
    }


def _is_own(rows: Rows) -> bool:
    """Whether chunks are executed as far as the policy says."""
    return rows[0]["execute_steps"] == "4" and rows[0]["stitching"] == "continue_chunk"


def _conditions(path: Path) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["condition"], []).append(row)
    return found


def _summaries(results: Path) -> dict[str, dict[str, object]]:
    paths = sorted(results.glob("*/*/*/summary.json"))
    return {str(path.parent.relative_to(results)): json.loads(path.read_text(encoding="utf-8")) for path in paths}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
