"""Write the tables of docs/results/flow.md from the evaluations and benchmarks of flow.sh.

    python benchmarks/flow_page.py outputs/benchmarks/flow docs/results/flow.md

Reads <results>/<task>/{flow,diffusion}/ and <results>/<task>/calls/. The differences are paired by seed. Only the part
between the script's two marks is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness_pages import made, markdown
from played import difference, outcomes, rate, read_json, write_page

from specpolicy.errors import SpecpolicyError

BEGIN = "<!-- written by benchmarks/flow.sh: begin -->"
SUCCESS = ["task, K", "episodes", "flow, ODE", "flow, ancestral", "ODE minus ancestral", "DDPM", "DDIM"]


def main(arguments: list[str]) -> int:
    return write_page("flow_page", arguments, BEGIN, body)


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
    counted = {path.parent.parent.name: read_json(path) for path in sorted(results.glob("*/calls/summary.json"))}
    if counted:
        names = list(dict.fromkeys(_sampler(one["label"]) for found in counted.values() for one in found["samplers"]))
        rows = [row for task, found in counted.items() for row in called(task, found, names)]
        parts += ["Calls of a chunk on the ancestral chain, and in brackets the states evaluated:"]
        parts += [markdown([["task, K", *names], *rows])]
    finished = [path.parent for path in played if (path.parent / "summary.json").exists()]
    summaries = {f"{path.parent.name}/{path.name}": read_json(path / "summary.json") for path in finished}
    return "\n\n".join([*parts, made(summaries)])


def success(place: Path) -> Iterator[list[str]]:
    """Yield a row of success for each number of steps of a task."""
    flow, diffusion = (outcomes(place / name / "episodes.csv") for name in ("flow", "diffusion"))
    counts = sorted({int(name.rpartition("-")[2]) for name in (*flow, *diffusion)})
    for count in counts:
        ode, ancestral = (flow.get(f"{name}-{count}", {}) for name in ("euler", "ddpm"))
        others = [diffusion.get(f"{name}-{count}", {}) for name in ("ddpm", "ddim")]
        played = sorted({len(one) for one in (ode, ancestral, *others) if one})
        numbers = " to ".join(map(str, dict.fromkeys((played[0], played[-1]))))
        yield [
            f"{place.name}, {count}",
            numbers,
            rate(ode),
            rate(ancestral),
            difference(ode, ancestral),
            *map(rate, others),
        ]


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
