"""How evenly the control loop ticks while inference loads the machine, in a thread and in a process.

    python benchmarks/control_jitter.py --seconds 300

The robot stands still, so that only the loop and inference are measured. A new chunk is requested at every control
step, as soon as the last one has come: inference never rests. The page and the JSON file beside it give for each rate
and worker how late the ticks were, how uneven their intervals, and how many periods were missed. Run it on a machine
that does nothing else; `load` in the file says how busy it was at the start. Rows already in the file are kept if they
are from the same machine and of the same length and are not measured now.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import specpolicy
from specpolicy.benchmarking.table import markdown_table
from specpolicy.control import Controller
from specpolicy.evaluation.provenance import hardware, load
from specpolicy.files import write_text
from specpolicy.machine import versions
from specpolicy.policy import DiffusionPolicy


class StillRobot:
    """Always returns the same observation."""

    def __init__(self, policy: DiffusionPolicy):
        sizes = {key: policy.encoder.shapes[key] for key in policy.observation_keys}
        self._observation = {key: np.zeros(size, np.float32) for key, size in sizes.items()}

    def observe(self) -> dict[str, np.ndarray]:
        return self._observation

    def act(self, action: np.ndarray) -> None:
        pass

    def stop(self) -> None:
        pass


def measure(policy: DiffusionPolicy, sampler: str, worker: str, hz: float, seconds: float) -> dict[str, Any]:
    """Return the timing report of one run."""
    controller = Controller(
        policy,
        StillRobot(policy),
        hz=hz,
        sampler=sampler,
        worker=worker,
        execute_steps=1,
        lead=1,
        stitching="naive_switch",  # there is always an action to execute, however slow inference is
        watchdog=None,
        inference_timeout=60.0,
    )
    return controller.run(seconds).summary()


HEAD = [
    "sampler",
    "Hz",
    "worker",
    "late p50",
    "p99",
    "max",
    "jitter std",
    "p99",
    "chunk p50",
    "missed periods",
    "ticks",
]


def row(sampler: str, report: dict[str, Any]) -> list[str]:
    """Return a line of the table; times in ms."""
    late, jitter = report["tick_lateness"], report["jitter"]
    figures = [late["p50"], late["p99"], late["max"], jitter["std"], jitter["p99"], report["latency"]["p50"]]
    times = [f"{1e3 * figure:.2f}" for figure in figures]
    return [sampler, f"{report['hz']:g}", report["worker"], *times, str(report["missed_periods"]), str(report["ticks"])]


def page(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine = found["machine"]
    table = markdown_table([HEAD, *(row(run["sampler"], run) for run in found["runs"])])
    return f"""# How evenly the control loop ticks

A chunk is asked for in every control step, as soon as the last one is there: inference never rests. Times in ms.
*Late*: how long after its moment a step began; *jitter*: how much longer or shorter than its period an interval
between two steps was; *missed*: periods that were over before their step could begin.

{table}

{found["seconds"]:g} s a run; inference on one thread of PyTorch; {machine["cpu"]}, {machine["cores"]} cores, no
real-time kernel; load average when it began: {", ".join(str(run["load"]) for run in found["runs"])}. The JSON file
beside this page has all figures.

```bash
{chr(10).join(dict.fromkeys(run["command"] for run in found["runs"]))}
```
"""


def kept(path: Path, found: dict[str, Any], measured: set[tuple[str, float, str]]) -> list[dict[str, Any]]:
    """Return the runs of an earlier file that are kept beside the ones measured now."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if any(before.get(name) != found[name] for name in ("machine", "seconds")):
        return []
    return [run for run in before["runs"] if (run["sampler"], run["hz"], run["worker"]) not in measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="checkpoints/lift", help="policy whose inference loads the machine")
    parser.add_argument("--samplers", nargs="+", default=["ddpm"])
    parser.add_argument("--hz", nargs="+", type=float, default=[20.0, 50.0])
    parser.add_argument("--workers", nargs="+", choices=["thread", "process"], default=["thread", "process"])
    parser.add_argument("--seconds", type=float, default=300.0, help="seconds of each run")
    parser.add_argument("--output", type=Path, default=Path("docs/results/control_jitter.json"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # as in the process, the loop keeps a core to itself
    policy = specpolicy.load_policy(arguments.policy)
    found: dict[str, Any] = {"machine": hardware(), "seconds": arguments.seconds, "versions": versions()}
    wanted = list(itertools.product(arguments.samplers, arguments.hz, arguments.workers))
    found["runs"] = kept(arguments.output, found, set(wanted))
    how = {"command": shlex.join(["python", *sys.argv]), "load": load()}
    print(" | ".join(HEAD))
    for sampler, hz, worker in wanted:
        report = measure(policy, sampler, worker, hz, arguments.seconds)
        found["runs"].append({"sampler": sampler, **how, **report})
        found["runs"].sort(key=lambda run: (run["sampler"], run["hz"], run["worker"]))
        print(" | ".join(row(sampler, report)), flush=True)
        write_text(arguments.output, json.dumps(found, indent=2) + "\n")
        write_text(arguments.output.with_suffix(".md"), page(found))
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
