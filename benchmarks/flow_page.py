"""Write the tables of docs/results/flow.md from the evaluations and benchmarks of flow.sh.

    python benchmarks/flow_page.py outputs/benchmarks/flow docs/results/flow.md

Reads <results>/<task>/{flow,diffusion}/ and <results>/<task>/calls/. The differences are paired by seed. Only the part
between the script's two marks is replaced.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness_pages import END, made, markdown

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.statistics import paired_success_difference, wilson
from specpolicy.files import write_text

BEGIN = "<!-- written by benchmarks/flow.sh: begin -->"
SUCCESS = ["task, K", "episodes", "flow, ODE", "flow, ancestral", "ODE minus ancestral", "DDPM", "DDIM"]
Outcomes = dict[str, dict[str, bool]]  # by sampler, by seed


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: flow_page.py RESULTS PAGE.md", file=sys.stderr)
        return 2
    results, page = map(Path, arguments)
    try:
        text = page.read_text(encoding="utf-8")
        before, found, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not found or not end:
            raise SpecpolicyError(f"{page} lacks the marks '{BEGIN}' and '{END}': put them where the tables belong")
        write_text(page, f"{before}{BEGIN}\n\n{body(results)}\n\n{END}{after}")
    except SpecpolicyError as error:
        print(f"flow_page: {error}", file=sys.stderr)
        return 2
    return 0


def body(results: Path) -> str:
    """Return the measured part of the page.

    Raises:
        SpecpolicyError: there are no results.
    """
    played = sorted(results.glob("*/*/episodes.csv"))
    if not played:
        raise SpecpolicyError(f"{results} holds no results: run benchmarks/flow.sh")
    tasks = sorted({path.parent.parent.name for path in played})
    parts = [markdown([SUCCESS, *(row for task in tasks for row in success(results / task))])]
    counted = {path.parent.parent.name: _json(path) for path in sorted(results.glob("*/calls/summary.json"))}
    if counted:
        names = list(dict.fromkeys(_sampler(one["label"]) for found in counted.values() for one in found["samplers"]))
        rows = [row for task, found in counted.items() for row in called(task, found, names)]
        parts += ["Calls of a chunk on the ancestral chain, and in brackets the states evaluated:"]
        parts += [markdown([["task, K", *names], *rows])]
    finished = [path.parent for path in played if (path.parent / "summary.json").exists()]
    summaries = {f"{path.parent.name}/{path.name}": _json(path / "summary.json") for path in finished}
    return "\n\n".join([*parts, made(summaries)])


def success(place: Path) -> Iterator[list[str]]:
    """Yield a row of success for each number of steps of a task."""
    flow, diffusion = (_outcomes(place / name / "episodes.csv") for name in ("flow", "diffusion"))
    counts = sorted({int(name.rpartition("-")[2]) for name in (*flow, *diffusion)})
    for count in counts:
        ode, ancestral = (flow.get(f"{name}-{count}", {}) for name in ("euler", "ddpm"))
        both = sorted(ode.keys() & ancestral.keys())
        difference = ""
        if both:
            found = paired_success_difference(*(np.array([one[seed] for seed in both]) for one in (ode, ancestral)))
            difference = f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        others = [diffusion.get(f"{name}-{count}", {}) for name in ("ddpm", "ddim")]
        played = sorted({len(one) for one in (ode, ancestral, *others) if one})
        numbers = " to ".join(map(str, dict.fromkeys((played[0], played[-1]))))
        yield [f"{place.name}, {count}", numbers, _rate(ode), _rate(ancestral), difference, *map(_rate, others)]


def called(task: str, summary: dict[str, Any], names: list[str]) -> Iterator[list[str]]:
    """Yield a row of calls for each number of steps of a task."""
    found = {one["label"]: one for one in summary["samplers"]}
    counts = sorted({_steps(label) for label in found})
    for count in counts:
        own = {_sampler(label): one for label, one in found.items() if _steps(label) == count}
        cells = [own.get(name) for name in names]
        yield [
            f"{task}, {count}",
            *("" if one is None else f"{one['calls']['mean']:.1f} ({one['rows']['mean']:.0f})" for one in cells),
        ]


def _sampler(label: str) -> str:
    name, _, number = label.rpartition("-")
    return name if number.isdecimal() else label


def _steps(label: str) -> int:
    number = label.rpartition("-")[2]
    return int(number) if number.isdecimal() else 100


def _rate(outcomes: dict[str, bool]) -> str:
    if not outcomes:
        return ""
    found = wilson(sum(outcomes.values()), len(outcomes))
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _outcomes(path: Path) -> Outcomes:
    found: Outcomes = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["condition"], {})[row["seed"]] = bool(int(row["success"]))
    return found


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
