"""The energy distance of two samples."""

import numpy as np
import torch

PERMUTATIONS = 1999


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
