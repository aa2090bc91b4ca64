"""Seconds of a chunk by LeRobot's own sampling and by our samplers of the wrapped policy, in turns in one process."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import specpolicy
from specpolicy.evaluation.provenance import hardware, load
from specpolicy.integrations.lerobot import wrap

TURNS = 3


@torch.no_grad()
def table(own: Any, draw: Callable[[Any], Any], samplers: Sequence[str], steps: int, size: str) -> list[str]:
    """Return a table of the page with the text before it.

    Args:
        own: LeRobot's policy, with random weights.
        draw: draws one chunk of a policy for one observation.
        samplers: names of ours.
        steps: of LeRobot's sampling.
        size: what the policy is, for the text.
    """
    policies = {"LeRobot": own}
    policies |= {name: wrap(copy.deepcopy(own), specpolicy.make_sampler(name)) for name in samplers}
    taken: dict[str, list[float]] = {name: [] for name in policies}
    machine, before = hardware(), load()
    for turn in range(TURNS):  # in turns, so that a busy moment affects all alike
        for name, policy in policies.items():
            torch.manual_seed(turn)
            begin = time.perf_counter()
            draw(policy)
            taken[name].append(time.perf_counter() - begin)
    base, rows = min(taken["LeRobot"]), []
    for name, policy in policies.items():
        calls = steps if name == "LeRobot" else int(policy.last_stats.calls)
        rows.append(f"| {name} | {calls} | {min(taken[name]):.2f} | {base / min(taken[name]):.1f} |")
    return [
        f"Seconds of a chunk at {size}, random weights, one thread, the least of",
        f"{TURNS}: {machine['cpu']}, {machine['cores']} cores, load {before} to {load()}.",
        "How many calls an exact sampler needs depends on what was learnt, so these say what calls cost on a CPU, not",
        "what a trained policy gains.",
        "",
        "| sampling | calls | seconds | LeRobot's / these |",
        "|---|---:|---:|---:|",
        *rows,
    ]
