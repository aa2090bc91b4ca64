"""The samplers on a GPU, with CUDA graphs: latency of a call against its rows, then the time of a chunk.

    scripts/gpu_benchmark.sh                          on a machine with a GPU
    scripts/gpu_benchmark.sh --device cpu --quick     on any machine: whether it works, not how fast it is

Needs torch, numpy and safetensors only. A trained policy and its recorded observations come from a checkpoint
directory. The first table is of the policy's own network; the second of the one that Diffusion Policy is usually
trained with, 66 M parameters, with random weights: its time, and the calls of the trained policy.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from specpolicy.benchmark import Settings, benchmark, notes, plain_table, result_table, rows_table, write_report
from specpolicy.engines.base import allows_tf32
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.histories import FILE, read_histories
from specpolicy.loading import load_policy
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers.speculative.samplers import Speculative

NETWORKS: dict[str, dict[str, Any] | None] = {
    "small": None,
    "large": {"down_dims": [256, 512, 1024], "diffusion_step_embed_dim": 256},
}
QUICK = {"down_dims": [16, 32, 64]}
SAMPLERS = ["ddpm", "ddim-10", "asd", "block", "recycled", "ddpm-16", "block-16", "recycled-16"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="checkpoints/lift", help="a trained policy: a checkpoint directory")
    parser.add_argument("--observations", help="by default observations.safetensors beside the policy")
    parser.add_argument(
        "--samplers", nargs="+", default=SAMPLERS, help="the first one is what the others are compared with"
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--count", type=int, default=200, help="chunks of each sampler")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engine", help="default: cuda_graph, on a CPU eager; compile fuses kernels besides")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="three chunks, and a large network that is small")
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
    summaries = {}
    for name in options.networks:
        network = QUICK if options.quick and NETWORKS[name] else NETWORKS[name]
        print(f"measuring the {name} network ...", file=sys.stderr, flush=True)
        settings = Settings(
            count=3 if options.quick else options.count,
            engine=options.engine or ("cuda_graph" if options.device.startswith("cuda") else "eager"),
            precision=options.precision,
            network=network,
            tuned=[label for label, sampler in samplers.items() if isinstance(sampler, Speculative)],
        )
        summary, draws = benchmark(policy, samplers, histories, settings)
        summary["policy"]["path"] = str(options.policy)
        summary["command"] = command
        write_report(summary, draws, options.output / name)
        summaries[name] = summary
        print(f"\nOne call of the {name} network:\n{plain_table(rows_table(summary['seconds_by_rows']))}\n")
        print(plain_table(result_table(summary)))
        print("\n".join(notes(summary)), flush=True)
    found = {
        "command": command,
        "cuda": torch.version.cuda,
        "tf32": {what: allows_tf32(what) for what in ("convolutions", "products")},
        "networks": summaries,
    }
    write_text(options.output / "gpu.json", json.dumps(found, indent=2) + "\n")
    print(f"\ngpu.json and a directory for each network are in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
