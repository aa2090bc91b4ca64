"""Samplers on a GPU with CUDA graphs: time of a call by its number of rows, then time of a chunk.

    scripts/gpu_benchmark.sh                          on a machine with a GPU
    scripts/gpu_benchmark.sh --device cpu --quick     on any machine: checks that it works, not how fast it is

Needs only torch, numpy and safetensors, and at most eight minutes. A checkpoint directory gives a trained policy and
its recorded observations. The first tables are for the policy's own network. Then come the U-Net that Diffusion Policy
is usually trained with (66 M parameters) and a transformer of 100 M, both with random weights: their time, with the
rounds of the trained policy. Each sampler is captured in the largest possible part: a step of a sequential one, a round
of an exact one. The results of a network are written before the next one is measured.

On the policy's own network two things are also checked: captured chunks equal uncaptured ones from the same random
numbers, and their distribution is that of ddpm.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from specpolicy.benchmarking import Settings, benchmark, notes, plain_table, result_table, rows_table, write_report
from specpolicy.distributions import same_distribution
from specpolicy.engines.base import allows_tf32
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.policy import load_policy
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers.speculative.samplers import Speculative

NETWORKS: dict[str, dict[str, Any] | None] = {
    "small": None,
    "large": {"down_dims": [256, 512, 1024], "diffusion_step_embed_dim": 256},
    "transformer": {"kind": "transformer", "n_emb": 768, "n_layer": 10, "n_head": 12},
}
QUICK = {"large": {"down_dims": [16, 32, 64]}, "transformer": {"kind": "transformer", "n_emb": 16, "n_layer": 1}}
SAMPLERS = ["ddpm", "ddim-10", "asd", "block", "recycled", "ddpm-16", "block-16", "recycled-16"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="checkpoints/lift", help="a trained policy: a checkpoint directory")
    parser.add_argument("--observations", help="default: observations.safetensors beside the policy")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, help="the others are compared with the first one")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="default: all; on a CPU, no transformer")
    parser.add_argument("--count", type=int, default=100, help="chunks of each sampler")
    parser.add_argument(
        "--checked", type=int, default=1000, help="chunks of each sampler whose distribution is checked"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engine", help="default: cuda_graph, on a CPU eager")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--quick", action="store_true", help="three chunks, one tuned sampler, small networks for large ones"
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/gpu"))
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "gpu_benchmark: torch sees no CUDA device on this machine; --device cpu --quick tries the script out",
            file=sys.stderr,
        )
        return 2
    command = shlex.join(["scripts/gpu_benchmark.sh", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        run(options, command)
    except SpecpolicyError as error:
        print(f"gpu_benchmark: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace, command: str) -> None:
    """Measure each network, print its tables, and write everything under `options.output`."""
    policy = load_policy(options.policy, options.device)
    histories = read_histories(options.observations or Path(options.policy) / FILE, policy)
    samplers = {name: make_sampler(name) for name in options.samplers}
    tuned = [label for label, sampler in samplers.items() if isinstance(sampler, Speculative)]
    summaries: dict[str, Any] = {}
    found: dict[str, Any] = {
        "command": command,
        "cuda": torch.version.cuda,
        "tf32": {what: allows_tf32(what) for what in ("convolutions", "products")},
        "networks": summaries,
    }
    # On a CPU nothing is captured, and only a network of the policy's own kind can replace its network.
    on_gpu = options.device.startswith("cuda")
    for name in options.networks or [name for name in NETWORKS if on_gpu or name != "transformer"]:
        print(f"measuring the {name} network ...", file=sys.stderr, flush=True)
        settings = Settings(
            count=3 if options.quick else options.count,
            engine=options.engine or ("cuda_graph" if on_gpu else "eager"),
            precision=options.precision,
            network=QUICK.get(name) if options.quick else NETWORKS[name],
            tuned=tuned[:1] if options.quick else tuned,
        )
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        summary, draws = benchmark(policy, samplers, histories, settings)
        summary["policy"]["path"] = str(options.policy)
        summary["command"] = command
        if on_gpu:
            summary["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        write_report(summary, draws, options.output / name)
        summaries[name] = summary
        print(f"\nOne call of the {name} network:\n{plain_table(rows_table(summary['seconds_by_rows']))}\n")
        print(plain_table(result_table(summary)))
        print("\n".join(notes(summary)), flush=True)
        if NETWORKS[name] is None:
            print("checking what captured samplers draw ...", file=sys.stderr, flush=True)
            found["check"] = check(
                policy, settings.engine, histories, samplers, 20 if options.quick else options.checked
            )
            print("\n" + plain_table(check_table(found["check"])), flush=True)
        write_text(options.output / "gpu.json", json.dumps(found, indent=2) + "\n")
    print(f"\ngpu.json and a directory for each network are in {options.output}")


def check(policy: Any, engine: str, histories: Any, samplers: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Compare chunks on the engine with chunks on eager, and their distribution with the sequential sampler's.

    Returns:
        By sampler: how far chunks are from those that the same random numbers give on eager, and how the distribution
            differs from that of the sequential sampler of the same chain, at one observation.
    """
    history = {key: values[0] for key, values in histories.items()}
    engines = [policy.with_engine(name) for name in ("eager", engine)]

    def chunks(policy: Any, sampler: Any, number: int, seed: int) -> torch.Tensor:
        bound = policy.sampler(sampler)
        drawn = [bound(history, torch.Generator().manual_seed(seed + one)).actions for one in range(number)]
        return torch.cat(drawn).cpu().double().flatten(1)

    found, references = [], {}
    for label, sampler in samplers.items():
        eager, captured = (chunks(one, sampler, min(count, 10), seed=0) for one in engines)
        steps = getattr(sampler, "steps", None) if isinstance(sampler, Speculative) else None
        if steps not in references:
            references[steps] = chunks(engines[1], make_sampler("ddpm", steps=steps), count, seed=10**6)
        apart = (captured - eager).abs().amax(dim=1)
        drawn = chunks(engines[1], sampler, count, seed=2 * 10**6)
        found.append(
            {
                "label": label,
                "chunks": count,
                "steps": steps,
                "largest_difference": float(apart.median()),
                "p": same_distribution(drawn, references[steps]),
            }
        )
    return found


def check_table(found: list[dict[str, Any]]) -> list[list[str]]:
    """Return the checks as a table for a terminal."""
    head = ["sampler", "chunks", "same numbers, eager: differs by", "p that the distribution is ddpm's of its steps"]
    return [head] + [
        [one["label"], str(one["chunks"]), f"{one['largest_difference']:.1e}", f"{one['p']:.2g}"] for one in found
    ]


if __name__ == "__main__":
    sys.exit(main())
