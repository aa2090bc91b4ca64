"""Write the tables of docs/results/opponents.md from the evaluations and benchmarks of opponents.sh.

    python benchmarks/opponents_page.py outputs/benchmarks/opponents docs/results/opponents.md

Reads <results>/<task>/{mip,diffusion,delay,times-*}/ and <results>/push_t/ways.json. The differences are paired by
seed. Only the part between the script's two marks is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from harness_pages import made, markdown
from played import coverages, difference, outcomes, rate, read_json, write_page

from specpolicy.errors import SpecpolicyError

BEGIN = "<!-- written by benchmarks/opponents.sh: begin -->"
SUCCESS = ["task", "episodes", "DDPM", "DDIM-10", "MIP", "its first answer", "MIP minus DDPM", "MIP minus DDIM-10"]
TIMES = ["task", "sampler", "calls", "ms a chunk, median", "to DDPM"]
DELAYS = [0, 1, 2, 4]
DELAYED = ["MIP", *(f"d = {delay}" for delay in DELAYS)]
FAILURES = [
    "Push-T",
    "episodes",
    "failures",
    "coverage below 0.5",
    "coverage 0.8 to 0.9",
    "mean of the largest coverage",
]
WAYS = ["Push-T", "clockwise", "counter-clockwise", "straight", "the rarer way", "entropy, bits"]


def main(arguments: list[str]) -> int:
    return write_page("opponents_page", arguments, BEGIN, body)


def body(results: Path) -> str:
    """Return the measured part of the page.

    Raises:
        SpecpolicyError: there are no results.
    """
    tasks = sorted({path.parent.parent for path in results.glob("*/*/episodes.csv")})
    if not tasks:
        raise SpecpolicyError(f"{results} holds no results: run benchmarks/opponents.sh")
    parts = [markdown([SUCCESS, *map(success, tasks)])]
    delayed = [late(task) for task in tasks if (task / "delay" / "episodes.csv").exists()]
    if delayed:
        parts.append(markdown([DELAYED, *delayed]))
    times = [row for task in tasks for row in timed(task)]
    if times:
        parts.append(markdown([TIMES, *times]))
    failed = list(failures(results / "push_t"))
    if failed:
        parts.append(markdown([FAILURES, *failed]))
    found = results / "push_t" / "ways.json"
    if found.exists():
        parts.append(markdown([WAYS, *ways(found)]))
    played = [task / name / "summary.json" for task in tasks for name in ("mip", "diffusion", "delay")]
    summaries = {f"{path.parts[-3]}/{path.parts[-2]}": read_json(path) for path in played if path.exists()}
    return "\n\n".join([*parts, made(summaries)])


def success(task: Path) -> list[str]:
    """Return a task's row of success."""
    mip, diffusion = (outcomes(task / name / "episodes.csv") for name in ("mip", "diffusion"))
    two, one = (mip.get(name, {}) for name in ("ddpm", "ddpm-1"))
    ddpm, ddim = (diffusion.get(name, {}) for name in ("ddpm", "ddim-10"))
    counts = {len(solved) for solved in (two, one, ddpm, ddim) if solved}
    played = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    rates = [rate(solved) for solved in (ddpm, ddim, two, one)]
    return [task.name, played, *rates, difference(two, ddpm), difference(two, ddim)]


def late(task: Path) -> list[str]:
    """Return a task's row of success against delay."""
    played = outcomes(task / "delay" / "episodes.csv")
    rates = {int(name.split(" d")[1].split()[0]): rate(solved) for name, solved in played.items()}
    return [task.name, *(rates.get(delay, "") for delay in DELAYS)]


def timed(task: Path) -> Iterator[list[str]]:
    """Yield a row for each sampler whose chunks were timed: those of DDPM's run first, then the opponent's."""
    reference = None
    for run, title in (("diffusion", "{}"), ("mip", "MIP")):
        path = task / f"times-{run}" / "summary.json"
        for one in read_json(path)["samplers"] if path.exists() else []:
            seconds = one["seconds"]["p50"]
            reference = seconds if one["label"] == "ddpm" and run == "diffusion" else reference
            share = f"{seconds / reference:.3f}" if reference else ""
            label = title.format(one["label"])
            yield [task.name, label, f"{one['calls']['mean']:.1f}", f"{seconds * 1e3:.1f}", share]


def failures(task: Path) -> Iterator[list[str]]:
    """Yield a row for each sampler: how far its failures came."""
    for run, title in (("diffusion", "{}"), ("mip", "MIP, {}")):
        for name, rows in coverages(task / run / "episodes.csv").items():
            failed = [coverage for solved, coverage in rows if not solved]
            counts = (len(rows), len(failed), sum(c < 0.5 for c in failed), sum(0.8 <= c < 0.9 for c in failed))
            mean = sum(coverage for _, coverage in rows) / len(rows)
            yield [title.format(name), *map(str, counts), f"{mean:.2f}"]


def ways(path: Path) -> Iterator[list[str]]:
    """Yield a row for each who went round the T."""
    for name, found in read_json(path).items():
        if isinstance(found, dict):
            keys = ("clockwise", "counter_clockwise", "straight", "rarer", "entropy")
            yield [name, *(f"{found[key]:.2f}" for key in keys)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
