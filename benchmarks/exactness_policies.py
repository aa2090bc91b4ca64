"""Exactness on shipped policies: lift and every policy that sees, at fixed observations, and controls that must fail.

    python benchmarks/exactness_policies.py --chunks 10000

The cases and tests are those of tests/samplers/speculative/test_policy_exactness.py, with more chunks: a sampler's
against those of the sequential sampler, drawn from the same encoded observation. Policies that see are found among the
checkpoints. Each row is saved when it is done and not computed again, so an interrupted run continues. The table goes
to docs/results/exactness_policies.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from exactness import GROUPS, ROOT, commit  # which also finds the tests' modules
from exactness_cases import CONTROLS, FALSE_ALARMS
from policies import POLICIES, STEPS, judge, noise_p, samplers

from specpolicy.evaluation.provenance import hardware
from specpolicy.files import write_text
from specpolicy.machine import versions

HEAD = ("policy", "sampler", "n", "calls", "D", *GROUPS, "p")
OBSERVATIONS = (0, 1)
CONTROLS_HEAD = (
    "Each is wrong on purpose and must be found on the mixtures of [exactness.md](exactness.md), whose distribution is "
    "known. Redrawing and seeing the noise are found here, too, and some of the others (p < 1e-8). Where a trained "
    "network's drafts are good, the bias of some is too small for so many chunks."
)
SUBTLE = ("recycled", "rejoining")  # controls whose bias shows on mixtures alone


def record(policy: str, name: str, sampler: Any, chunks: int) -> dict[str, Any]:
    """Return the row of a sampler: `chunks` at each observation, and the noises of as many chains over all of them."""
    start = time.process_time()
    verdict, calls = judge(policy, sampler, chunks, OBSERVATIONS, seed=3)
    noises, _ = noise_p(policy, sampler, max(chunks // 10, 1), seed=3)
    groups = {**verdict.groups, "noises": min(1.0, 2 * min(verdict.groups["noises"], noises))}
    return {
        "id": f"{policy}, {name}",
        "policy": policy,
        "sampler": name,
        "exact": name not in CONTROLS,
        "n": chunks,
        "calls": calls,
        "D": verdict.distance,
        **groups,
        "p": min(1.0, len(groups) * min(groups.values())),
        "seconds": round(time.process_time() - start, 1),
        "commit": commit(),
    }


def markdown(rows: list[dict[str, Any]], command: str) -> str:
    """Return the document."""
    machine, found = hardware(), versions()
    smallest = min((row["p"] for row in rows if row["exact"]), default=1.0)
    count = sum(row["exact"] for row in rows)
    lines = [
        "# Exactness on trained policies",
        "",
        f"    {command}",
        "",
        f"Run on {machine['cores']} cores of {machine['cpu']}, one thread, torch {found['torch']}, commit "
        + ", ".join(sorted({row["commit"] for row in rows}))
        + f"; {sum(row['seconds'] for row in rows) / 60:.0f} minutes of processor time.",
        "",
        f"Each row compares `n` chunks of a sampler with `2 n` of the sequential one at each of {len(OBSERVATIONS)} "
        f"recorded observations, chains of {STEPS} steps. Projections are slow movements of a chunk; the columns are "
        "those of [exactness.md](exactness.md). An observation is encoded once for all of its chunks.",
        "",
        f"{count} exact cases, the smallest p {smallest:.2g}: times their number, {min(1.0, smallest * count):.2g}. A "
        f"sampler counts as wrong below {FALSE_ALARMS:g}.",
    ]
    for title, exact in (("Exact samplers", True), ("Negative controls", False)):
        lines += ["", f"## {title}", ""]
        if not exact:
            lines += [CONTROLS_HEAD, ""]
        lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        lines += ["| " + " | ".join(map(_cell, map(row.get, HEAD))) + " |" for row in rows if row["exact"] == exact]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "< 1e-300" if value == 0.0 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000, help="chunks at each observation")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--results", type=Path, default=Path("outputs/benchmarks/exactness_policies.jsonl"))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "exactness_policies.md")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    command = shlex.join(["python", *sys.argv])
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    known = {row["id"]: row for row in map(json.loads, lines) if row["n"] == arguments.chunks}
    controls = {name: one for name, one in CONTROLS.items() if not any(word in name for word in SUBTLE)}
    for policy in arguments.policies:
        for name, sampler in {**controls, **samplers(policy)}.items():
            if f"{policy}, {name}" not in known:
                row = record(policy, name, sampler, arguments.chunks)
                known[row["id"]] = row
                print(f"{row['id']}: p = {row['p']:.2g}, {row['seconds']} s", flush=True)
                write_text(arguments.results, "".join(json.dumps(one) + "\n" for one in known.values()))
    rows = [row for row in known.values() if row["policy"] in arguments.policies]
    write_text(arguments.output, markdown(rows, command))
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
