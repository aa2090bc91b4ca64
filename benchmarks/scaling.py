"""How calls, rows and time of the exact samplers grow with the chain, the chunk, the batch and the network.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --trained outputs/train/horizon-32 outputs/train/horizon-64
    python benchmarks/scaling.py --parts times batches networks --count 5

Calls and rows come from an analytic denoiser, which is exact for any size and number of steps, and from a trained
policy on its recorded observations. They do not depend on the machine. --trained adds a column with policies of other
horizons, which need recorded observations beside them. Each figure is saved at once (docs/results/scaling.json) and not
measured again, so an interrupted run continues; `--again` repeats the given parts. The page beside the JSON file is
written from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from scaling_page import page
from scaling_subjects import Setting, mixture_setting, policy_setting, read_policy
from torch import Tensor

from specpolicy.benchmarking import Settings, benchmark
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.provenance import fingerprint, hardware, load
from specpolicy.files import write_text
from specpolicy.machine import versions
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers.bound import BoundSampler
from specpolicy.tuning import time_calls

SAMPLERS = ("asd", "block", "recycled")
STEPS = (10, 16, 25, 50, 100, 250, 1000)
HORIZONS, DIMENSIONS, BATCHES = (8, 16, 32, 64), (2, 4, 7, 10, 14), (1, 8, 64)
HORIZON, DIMENSION, LENGTH = 16, 7, 100  # values of what is not varied
CHUNKS = {"mixture": 400, "policy": 100, "trained": 100}
LONGEST = {"chunks": 24, "from": 250}  # fewer chunks for a policy's longest chains, which take a hundred times as long
TOGETHER = 2000  # chain lengths that are drawn in batches
LARGE = {"down_dims": [256, 512, 1024], "diffusion_step_embed_dim": 256}
PARTS = ("calls", "times", "batches", "networks")


def count(setting: Setting, cond: Tensor | None, sampler: str, chunks: int) -> dict[str, Any]:
    """Return calls of each chunk and mean rows, drafting to the end; chunk n uses the random numbers of seed n."""
    bound = BoundSampler(make_sampler(sampler, window=None), setting)
    together = max(1, min(16, TOGETHER // len(setting.chain)))
    calls, rows = list[int](), 0
    for first in range(0, chunks, together):
        numbers = range(first, min(first + together, chunks))
        own = None if cond is None else cond[torch.tensor([number * len(cond) // chunks for number in numbers])]
        stats = bound(len(numbers), own, [torch.Generator().manual_seed(number) for number in numbers]).stats
        calls += stats.calls.tolist()
        rows += int(stats.rows.sum())
    return {"calls": calls, "rows": rows / chunks}


def counts(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield what is to be counted: its name, and the function that counts it."""

    def entry(subject: str, setting: Setting, cond: Tensor | None, sampler: str, chunks: int, **more: Any) -> Any:
        name = {"subject": subject, "steps": len(setting.chain), "horizon": setting.shape[0]}
        name |= {"dimension": setting.shape[1], "sampler": sampler, "chunks": chunks, **more}
        return name, lambda: count(setting, cond, sampler, chunks)

    sizes = [(steps, HORIZON, DIMENSION) for steps in STEPS]
    sizes += [(LENGTH, horizon, DIMENSION) for horizon in HORIZONS if horizon != HORIZON]
    sizes += [(LENGTH, HORIZON, dimension) for dimension in DIMENSIONS if dimension != DIMENSION]
    for size in sizes:
        for sampler in SAMPLERS:
            yield entry("mixture", mixture_setting(*size), None, sampler, CHUNKS["mixture"])
    policy, cond = read_policy(options.policy, "eager")
    known = {"path": str(options.policy), "fingerprint": fingerprint(policy)}
    for steps in STEPS:
        chunks = LONGEST["chunks"] if steps >= LONGEST["from"] else CHUNKS["policy"]
        between = steps > policy.chain.process.steps
        for sampler in SAMPLERS:
            if not (between and sampler == "recycled"):  # its surrogates need whole timesteps
                yield entry("policy", policy_setting(policy, steps), cond, sampler, chunks, between=between, **known)
    for path in options.trained:
        other, cond = read_policy(path, "eager")
        known = {"path": str(path), "fingerprint": fingerprint(other)}
        for sampler in SAMPLERS:
            yield entry("trained", other.setting(), cond, sampler, CHUNKS["trained"], **known)


def times(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds of one chunk by steps and sampler, measured as in `specpolicy benchmark`."""
    policy, _ = read_policy(options.policy, "eager")
    histories, found = read_histories(options.policy / FILE, policy), []
    for steps in (steps for steps in STEPS if steps <= policy.chain.process.steps):
        samplers = {"ddpm": make_sampler("ddpm", steps=steps)}
        samplers |= {name: make_sampler(name, steps=steps, window=None) for name in SAMPLERS}
        found += _benchmark(policy, samplers, histories, Settings(options.count, engine=options.engine), steps=steps)
    return found


def batches(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return calls, rows and seconds of chunks that are drawn together."""
    policy, cond = read_policy(options.policy, options.engine)
    found = []
    for batch in BATCHES:
        own = cond[torch.linspace(0, len(cond) - 1, batch).long()]
        for name in ("ddpm", *SAMPLERS):
            sampler = make_sampler(name) if name == "ddpm" else make_sampler(name, window=None)
            bound = BoundSampler(sampler, dataclasses.replace(policy.setting(), chain=policy.chain))

            def draw(bound: BoundSampler = bound, own: Tensor = own) -> Any:
                return bound(len(own), own, [torch.Generator().manual_seed(number) for number in range(len(own))])

            stats = draw().stats
            seconds = time_calls({batch: draw}, policy.device, turns=2 if batch < max(BATCHES) else 1)[batch]
            calls, rows = len(stats.rows_by_call), sum(stats.rows_by_call)
            found.append({"batch": batch, "sampler": name, "calls": calls, "rows": rows, "seconds": seconds})
            print(f"batch {batch}, {name}: {calls} calls, {seconds:.3g} s", file=sys.stderr, flush=True)
    return found


def networks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds of one chunk with the policy's network, and with a larger one of random weights."""
    policy, _ = read_policy(options.policy, "eager")
    histories, found = read_histories(options.policy / FILE, policy), []
    samplers = {"ddpm": make_sampler("ddpm")} | {name: make_sampler(name, window=None) for name in SAMPLERS}
    for network, number in ((None, options.count), (LARGE, 1)):
        settings = Settings(number, engine=options.engine, network=network)
        found += _benchmark(policy, samplers, histories, settings)
    return found


def _benchmark(policy: Any, samplers: Any, histories: Any, settings: Settings, **more: Any) -> list[dict[str, Any]]:
    summary, _ = benchmark(policy, samplers, histories, settings)
    made = []
    for one in summary["samplers"]:
        figures = {"calls": one["calls"]["mean"], "rows": one["rows"]["mean"], "seconds": one["seconds"]["mean"]}
        network = {"parameters": summary["network"]["parameters"], "bound": one["bound"]["seconds"]}
        made.append({**more, "sampler": one["label"], **figures, **network})
        print(f"{more} {one['label']}: {figures['seconds']:.3g} s", file=sys.stderr, flush=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=Path("checkpoints/can"), help="the trained policy")
    parser.add_argument("--trained", type=Path, nargs="*", default=[], help="policies of other horizons")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--again", action="store_true", help="measure the parts again")
    parser.add_argument("--engine", default="eager", help="engine for times; calls are counted with PyTorch")
    parser.add_argument("--count", type=int, default=5, help="chunks per timing")
    parser.add_argument("--output", type=Path, default=Path("docs/results/scaling.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        run(options)
    except SpecpolicyError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Measure what is not known yet, and write both files after each step."""
    known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    found: dict[str, Any] = {"calls": [], **known}
    if options.again:
        found |= {"calls": []} if "calls" in options.parts else {}
        found = {name: value for name, value in found.items() if name == "calls" or name not in options.parts}
    if "calls" in options.parts:
        for name, measure in counts(options):
            if not any(name.items() <= one.items() for one in found["calls"]):
                found["calls"].append({**name, **measure()})
                print(name, file=sys.stderr, flush=True)
                _write(options.output, found)
    for part, measure in (("times", times), ("batches", batches), ("networks", networks)):
        if part in options.parts and part not in found:
            how = {"engine": options.engine, "policy": str(options.policy), "machine": hardware(), "load": load()}
            how |= {"threads": torch.get_num_threads(), "versions": versions(), "command": shlex.join(sys.argv)}
            found[part] = {**how, "figures": measure(options)}
            _write(options.output, found)
    _write(options.output, found)


def _write(path: Path, found: dict[str, Any]) -> None:
    write_text(path, json.dumps(found) + "\n")
    write_text(path.with_suffix(".md"), page(found))


if __name__ == "__main__":
    sys.exit(main())
