"""The long run of the exactness tests: every exact sampler on every kind of chain, and controls that must fail.

    python benchmarks/exactness.py --chunks 100000

The cases and tests are those of tests/samplers/speculative, with more chunks. The targets are mixtures of Gaussians.
Their exact denoiser is known, so only the sampler can be wrong. Takes about 20 minutes on one core. Each case is saved
when it is done and not run again, so an interrupted run continues; `--again TEXT` repeats the cases whose names contain
TEXT. The table goes to docs/results/exactness.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from specpolicy.evaluation.provenance import hardware
from specpolicy.files import write_text
from specpolicy.machine import versions
from specpolicy.model import Model
from specpolicy.samplers import Setting

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "samplers" / "speculative"))

from exactness_cases import CASES, CHAINS, CONTROL_CASES, FALSE_ALARMS, SHAPE, Case, Composed, judge  # noqa: E402
from mixtures import MixtureDenoiser  # noqa: E402

GROUPS = ("final KS", "final energy", "joint KS", "joint energy", "noises")
HEAD = ("chain", "sampler", "drafter", "verifier", "window", "n", "calls", "rejections", "D", *GROUPS, "p")
LEGEND = """
Chunks of 2 actions of 2 numbers from mixtures of Gaussians (`tests/samplers/speculative/mixtures.py`), on chains of 8
to 20 steps: `ddpm` has 20 here. `recycled` has the uncalibrated prior, *recycled, student* a student with random
weights; on a shipped policy, with its calibration, `tests/samplers/speculative/test_policy_exactness.py` does the same.
Each row compares `n` chunks of a sampler with `2 n` of the sequential sampler on the same chain:

- **calls**: network calls of a chunk, on average; the chain's steps are what the sequential sampler takes.
- **rejections**: rejected drafts of all chunks: how often the coupling that is tested was at work.
- **D**: the largest difference of two distribution functions that any KS test of the row met.
- **final KS, final energy**: chunks together with the states before them: Kolmogorov-Smirnov tests of projections,
  and the energy distance. **joint KS, joint energy**: the same for three consecutive states (and the condition, where
  chunks have one), at three places of the chain.
- **noises**: the noises that the states imply, recovered with the network, against independent standard normals.

Every column is a p-value, corrected for the number of tests in it; **p** joins them (Bonferroni). So a row of an exact
sampler falls below any level with at most that probability.
""".strip()


def record(case: Case, chunks: int) -> dict[str, Any]:
    """Run a case and return its row of the table."""
    chain, sampler = CHAINS[case.chain], case.sampler
    if isinstance(sampler, Composed):
        drafter, verifier = sampler.drafter(chain, SHAPE), sampler.verifier
    else:
        draw = sampler.bind(Setting(Model(MixtureDenoiser(chain.process)), chain, torch.Size(SHAPE)))
        drafter, verifier = draw.drafter, draw.verifier
    start = time.process_time()
    verdict, statistics = judge(case, chunks)
    return {
        "id": case.id,
        "chain": case.chain + ", conditions" * case.conditioned + ", float64" * (case.dtype == torch.float64),
        "sampler": case.name,
        "drafter": drafter.name,
        "verifier": verifier.name,
        "window": case.window or "to the end",
        "n": chunks,
        "calls": sum(float(part.calls.sum()) for part in statistics) / chunks,
        "rejections": sum(int(part.rejections.sum()) for part in statistics),
        "D": verdict.distance,
        **verdict.groups,
        "p": verdict.p,
        "seconds": round(time.process_time() - start, 1),
        "commit": commit(),
    }


@functools.cache  # at the start of the run: the page that it writes makes the tree dirty
def commit() -> str:
    """Return the version of the code, as git names it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def markdown(exact: list[dict[str, Any]], controls: list[dict[str, Any]], command: str) -> str:
    """Return the document."""
    smallest = min((row["p"] for row in exact), default=1.0)
    machine, found = hardware(), versions()
    done = "" if len(exact) == len(CASES) and len(controls) == len(CONTROL_CASES) else " (unfinished)"
    lines = [
        f"# Exactness{done}",
        "",
        f"    {command}",
        "",
        f"Run on {machine['cores']} cores of {machine['cpu']}, one thread, torch {found['torch']}, commit "
        + ", ".join(sorted({row["commit"] for row in exact + controls}))
        + f"; {sum(row['seconds'] for row in exact + controls) / 60:.0f} minutes of processor time.",
        "",
        LEGEND,
        "",
        "## Exact samplers",
        "",
        f"{len(exact)} cases, the smallest p of all {smallest:.2g}: times the number of cases, "
        f"{min(1.0, smallest * len(exact)):.2g}. A sampler counts as wrong below {FALSE_ALARMS:g}.",
        "",
        *table(exact),
        "",
        "## Negative controls",
        "",
        "Samplers that are wrong on purpose, under the same tests. `skewed` is a drafter that is off by one sigma at "
        "each step: with an honest verifier it is exact (above), with these it shows their bias.",
        "",
        *table(controls),
    ]
    return "\n".join(lines) + "\n"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table."""
    return [
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(_cell(name, row[name]) for name in HEAD) + " |" for row in rows),
    ]


def _cell(name: str, value: Any) -> str:
    if name in ("n", "rejections"):
        return f"{value:,}"
    if name == "calls":
        return f"{value:.2f}"
    if value == 0.0 and isinstance(value, float):
        return "< 1e-300"
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="chunks of each case")
    parser.add_argument("--again", metavar="TEXT", help="repeat the cases whose names contain this text")
    parser.add_argument("--results", type=Path, default=Path("outputs/benchmarks/exactness.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("docs/results/exactness.md"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    command = shlex.join(["python", *sys.argv])
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    known = {row["id"]: row for row in map(json.loads, lines) if row["n"] == arguments.chunks}
    if arguments.again:
        known = {name: row for name, row in known.items() if arguments.again not in name}

    def write() -> None:
        text = "".join(json.dumps(row) + "\n" for row in known.values())
        write_text(arguments.results, text)
        exact, controls = ([known[case.id] for case in cases if case.id in known] for cases in (CASES, CONTROL_CASES))
        write_text(arguments.output, markdown(exact, controls, command))

    for number, case in enumerate([*CONTROL_CASES, *CASES], start=1):
        if case.id not in known:
            known[case.id] = row = record(case, arguments.chunks)
            count = len(CASES) + len(CONTROL_CASES)
            print(f"{number}/{count} {case.id}: p = {row['p']:.2g}, {row['seconds']} s", flush=True)
            write()
    write()
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
