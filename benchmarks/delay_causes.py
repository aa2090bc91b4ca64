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
from harness_pages import END, made, markdown

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.statistics import paired_success_difference, wilson
from specpolicy.files import write_text

BEGIN = "<!-- written by benchmarks/delay_causes.sh: begin -->"
HEAD = ["task", "policy", "episodes", "delay", "steps of a chunk", "how", "success", "to no delay", "jump at a switch"]
ORACLE = "arm_known"
Rows = list[dict[str, str]]


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: delay_causes.py RESULTS PAGE.md", file=sys.stderr)
        return 2
    results, page = map(Path, arguments)
    try:
        text = page.read_text(encoding="utf-8")
        before, found, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not found or not end:
            raise SpecpolicyError(f"{page} lacks the marks '{BEGIN}' and '{END}': put them where the table belongs")
        body = "\n\n".join([markdown([HEAD, *table(results)]), made(_summaries(results))])
        write_text(page, f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
    except SpecpolicyError as error:
        print(f"delay_causes: {error}", file=sys.stderr)
        return 2
    return 0


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
    solved = wilson(sum(int(row["success"]) for row in rows), len(rows))
    jumps = [float(row["switch_jump_mean"]) for row in rows if row["switch_jump_mean"]]
    return [
        str(len(rows)),
        "4, of the scene alone" if known else rows[0]["delay"],
        rows[0]["execute_steps"],
        "an oracle knows the arm" if known else rows[0]["stitching"] + ", 2 in flight" * flight,
        f"{solved.estimate:.2f} [{solved.low:.2f}, {solved.high:.2f}]",
        "" if rows is reference else _difference(rows, reference),
        f"{np.mean(jumps):.2f}" if jumps else "",
    ]


def _difference(rows: Rows, reference: Rows) -> str:
    """The paired difference; both have the same seeds."""
    own, other = ({row["seed"]: int(row["success"]) for row in one} for one in (rows, reference))
    found = paired_success_difference(*(np.array([one[seed] for seed in sorted(own)]) for one in (own, other)))
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


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
