"""Time a call of a diffusion transformer before and after its condition's part is computed once a chunk.

The size is that of LeRobot's multi_task_dit by default, with two cameras: 2 frames of 7 + 2 x 768 + 512 numbers, 32
actions of 7 numbers. Before: every call computes everything. The weights are random.

Usage: python benchmarks/dit_calls.py [THREADS]     prints rows of a table (docs/lerobot.md)
"""

import os
import sys

import torch

from specpolicy.engines import make_engine
from specpolicy.errors import SpecpolicyError
from specpolicy.machine import cpu_name
from specpolicy.networks import DiffusionTransformer
from specpolicy.tuning import time_calls

HORIZON, ACTIONS, CONDITION = 32, 7, 2 * (7 + 2 * 768 + 512)
ROWS, TURNS = (1, 32), 9


class Whole(torch.nn.Module):
    """The network without its two parts."""

    def __init__(self, network: DiffusionTransformer):
        super().__init__()
        self.network = network

    def forward(self, x, t, cond):
        """See `Denoiser`."""
        return self.network(x, t, cond.contiguous())  # or rows that visibly share a condition would share its part


def main(threads: int) -> None:
    """Print the table."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network = DiffusionTransformer(ACTIONS, ACTIONS, HORIZON, CONDITION).eval()
    for block in network.transformer_blocks:  # they begin at zero
        torch.nn.init.normal_(block.modulation.weight, std=0.01)
    costly = sum(block.modulation.weight.numel() for block in network.transformer_blocks)
    total = sum(parameter.numel() for parameter in network.parameters())
    print(f"{total / 1e6:.0f} M parameters, {costly / total:.0%} in layers of the condition and the timestep")
    print(f"{cpu_name()}, {threads} thread(s), load {os.getloadavg()[0]:.1f}")
    print("| engine | rows | before, ms | after, ms |")
    print("|---|---:|---:|---:|")
    for name in ("eager", "openvino"):
        found = {}
        for label, module in (("before", Whole(network)), ("after", network)):
            try:
                engine = make_engine(name, module, (HORIZON, ACTIONS), (CONDITION,), max(ROWS))
            except SpecpolicyError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return
            calls = {}
            for rows in ROWS:
                x, t, cond = engine.workload.example(rows)
                shared = cond[:1].expand(rows, -1)
                calls[rows] = lambda engine=engine, x=x, t=t, cond=shared: engine(x, t, cond)
            with torch.inference_mode():
                found[label] = time_calls(calls, torch.device("cpu"), TURNS)
        for rows in ROWS:
            before, after = (1e3 * found[label][rows] for label in ("before", "after"))
            print(f"| {name} | {rows} | {before:.1f} | {after:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
