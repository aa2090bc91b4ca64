"""The energy distance of two samples, and samplers of a wrapped policy compared by it."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import specpolicy
from specpolicy.integrations.lerobot import wrap

PERMUTATIONS = 1999
LEVEL = 0.001  # a comparison fails below this


def energy_p(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """Return the energy distance of two samples and its p-value over permutations of the pooled sample.

    Source: Szekely and Rizzo 2004.
    """
    pooled = torch.cat([first, second]).double()
    distances = torch.cdist(pooled, pooled)
    signs = torch.cat([torch.ones(len(first)) / len(first), -torch.ones(len(second)) / len(second)]).double()
    generator = np.random.default_rng(0)
    orders = np.stack([np.arange(len(signs)), *(generator.permutation(len(signs)) for _ in range(PERMUTATIONS))])
    weights = signs[torch.from_numpy(orders)].T
    energies = -(weights * (distances @ weights)).sum(0)
    return float(energies[0]), float((energies >= energies[0]).double().mean())


def compare(
    own: Any, draw: Callable[[Any, int], torch.Tensor], samplers: Sequence[str], control: str, title: str, steps: int
) -> tuple[list[str], bool]:
    """Return (rows of a table, whether all is as it should be): LeRobot's own sampling, and ours of the wrapped policy.

    Args:
        own: LeRobot's policy.
        draw: draws many chunks of a policy for one observation, (N, numbers), from a seed.
        samplers: names of those that keep the distribution.
        control: the name of one that does not, and must fail.
        title: of LeRobot's own sampling.
        steps: calls of that.
    """
    reference, rows, good = draw(own, 1), [], True
    for seed, name in enumerate((title, *samplers, control), start=2):
        policy = copy.deepcopy(own)
        if name != title:
            wrap(policy, specpolicy.make_sampler(name))
        distance, p = energy_p(reference, draw(policy, seed))
        calls = steps if name == title else policy.last_stats.calls.double().mean().item()
        good &= (p <= LEVEL) if name == control else (p > LEVEL)
        what = "another distribution: must fail" if name == control else ""
        rows.append(f"| {name} | {calls:.1f} | {distance:.5f} | {p:.4f} | {what} |")
    return rows, good
