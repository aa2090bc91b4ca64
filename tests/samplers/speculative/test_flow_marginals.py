"""The ancestral chain of a flow whose velocity is known: what it draws, what the exact samplers draw, and the ODE.

Chunks are single numbers from a mixture of two Gaussians. False alarms: 1e-3 for all exact samplers together.
"""

import pytest
import torch
from mixtures import MixtureVelocity
from scipy import special

from specpolicy import GaussianChain, flow_denoiser, sample
from specpolicy.distributions import same_distribution

CENTRES = torch.tensor([-0.6, 0.5], dtype=torch.float64)[:, None, None]
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
SPREAD = 0.15
EXACT = ("asd", "reflection", "residual", "block", "recycled")
COUNT = 20_000


def draw(sampler, steps, seed, count=COUNT, noise_at=1):
    """(count, 1) of a chain of `steps`."""
    chain = GaussianChain.from_flow(steps, noise_at)
    denoiser = flow_denoiser(MixtureVelocity(chain.process, SPREAD, CENTRES, WEIGHTS), chain)
    generator = torch.Generator().manual_seed(seed)
    return sample(denoiser, chain, (count, 1, 1), sampler=sampler, generator=generator).actions.flatten(1).double()


@pytest.fixture(scope="module")
def sequential():
    """Of the sequential sampler."""
    return {steps: draw("ddpm", steps, seed=1, count=2 * COUNT) for steps in (4, 10)}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("steps", (4, 10))
def test_exact_samplers_draw_what_the_ancestral_chain_draws(sequential, name, steps):
    p = same_distribution(draw(name, steps, seed=2), sequential[steps])
    assert p > 1e-3 / (2 * len(EXACT)), p


@pytest.mark.parametrize("name", ("euler", "ddim"))
def test_the_ode_with_as_many_steps_draws_from_another_distribution(sequential, name):
    """The control: the same test tells it apart by a wide margin, at both numbers of steps."""
    for steps in (4, 10):
        assert same_distribution(draw(f"{name}-{steps}", steps, seed=2), sequential[steps]) < 1e-9


@pytest.mark.parametrize("sampler", ("ddpm", "euler-{}", "rk4-{}"))
@pytest.mark.parametrize("noise_at", (0, 1))
def test_with_many_steps_chain_and_ode_come_near_the_data(sampler, noise_at):
    """By the mean distance of quantiles (Wasserstein's), 0.01 of which is chance at this number of chunks."""
    grid = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    shares = WEIGHTS * special.ndtr((grid[:, None] - CENTRES.flatten()) / SPREAD)

    def distance(steps):
        drawn = draw(sampler.format(steps), steps, seed=3, noise_at=noise_at).flatten().sort().values
        found = torch.searchsorted(drawn, grid, right=True) / len(drawn)
        return float((found - shares.sum(1)).abs().mean() * 4)

    assert distance(100) < 0.02 and (sampler.startswith("rk4") or distance(4) > 2 * distance(100))
