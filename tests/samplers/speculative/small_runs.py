"""Small batches of mixture chunks, each with a condition of its own, for the tests of the loop."""

import torch
from exactness_cases import CHAINS
from mixtures import Counting, MixtureDenoiser

from specpolicy import sample

EXACT = ("asd", "reflection", "residual", "block", "recycled")
SHAPE = (2, 2)


def conditions(count):
    """A condition for each chunk."""
    return 0.3 * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def run(sampler, batch=6, chain="ddpm", seed=0, dtype=torch.float32, denoiser=None):
    """(sample, counting denoiser) of a batch with conditions."""
    chain = CHAINS[chain] if isinstance(chain, str) else chain
    counting = Counting(denoiser or MixtureDenoiser(chain.process))
    generator = torch.Generator().manual_seed(seed)
    cond = conditions(batch).to(dtype)
    return sample(counting, chain, (batch, *SHAPE), cond, sampler, generator, return_states=True, dtype=dtype), counting
