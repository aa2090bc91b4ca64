"""What pages read from evaluations: who solved which seed, success with its interval, differences by seed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness_pages import END

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.statistics import paired_success_difference, wilson
from specpolicy.files import write_text


def outcomes(path: Path) -> dict[str, dict[str, bool]]:
    """Return {condition: {seed: solved}} of an episodes.csv; nothing where there is none."""
    found: dict[str, dict[str, bool]] = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["condition"], {})[row["seed"]] = bool(int(row["success"]))
    return found


def coverages(path: Path) -> dict[str, list[tuple[bool, float]]]:
    """Return {condition: [(solved, largest coverage) of an episode]} where an episodes.csv has them."""
    found: dict[str, list[tuple[bool, float]]] = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("max_coverage"):
                    solved = bool(int(row["success"]))
                    found.setdefault(row["condition"], []).append((solved, float(row["max_coverage"])))
    return found


def rate(solved: dict[str, bool]) -> str:
    """Return success with its 95 % Wilson interval."""
    if not solved:
        return ""
    found = wilson(sum(solved.values()), len(solved))
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def difference(one: dict[str, bool], other: dict[str, bool]) -> str:
    """Return one minus other on the seeds of both, with its 95 % interval."""
    both = sorted(one.keys() & other.keys())
    if not both:
        return ""
    found = paired_success_difference(*(np.array([each[seed] for seed in both]) for each in (one, other)))
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def read_json(path: Path) -> dict[str, Any]:
    """Return the contents of a file of JSON."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_page(script: str, arguments: list[str], begin: str, body: Callable[[Path], str]) -> int:
    """Replace what stands in a page between the mark `begin` and the next end by the results' body.

    Args:
        script: name of the page's script, for what it says.
        arguments: of its command line: the directory of results, and the page.
        begin: the mark.
        body: makes the text; raises SpecpolicyError where there are no results.

    Returns:
        The exit code.
    """
    if len(arguments) != 2:
        print(f"usage: {script}.py RESULTS PAGE.md", file=sys.stderr)
        return 2
    results, page = map(Path, arguments)
    try:
        before, found, rest = page.read_text(encoding="utf-8").partition(begin)
        _, end, after = rest.partition(END)
        if not found or not end:
            raise SpecpolicyError(f"{page} lacks the marks '{begin}' and '{END}': put them where the tables belong")
        write_text(page, f"{before}{begin}\n\n{body(results)}\n\n{END}{after}")
    except (SpecpolicyError, OSError) as error:
        print(f"{script}: {error}", file=sys.stderr)
        return 2
    return 0
