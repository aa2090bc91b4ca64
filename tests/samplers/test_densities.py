"""Log densities of the steps that were taken: those of the chain, whatever was drafted on the way."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from specpolicy import GaussianChain, SpecpolicyError, flow_denoiser, log_probs, make_sampler, sample

SHAPE = (64, 4, 3)
COND = torch.randn(64, 3, generator=torch.Generator().manual_seed(7))


class Small(nn.Module):
    """A smooth denoiser with weights to learn."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.5 * torch.randn(3, 3, generator=generator, dtype=torch.float64))

    def forward(self, x, t, cond):
        found = torch.tanh(x.double() @ self.weight) + 0.01 * t[:, None, None]
        return (found if cond is None else found + 0.2 * cond[:, None, :]).to(x.dtype)


CHAIN = GaussianChain.ddpm(train_steps=20, steps=20)
NETWORK = Small()


def draw(sampler="ddpm", chain=CHAIN, **options):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return sample(
            NETWORK, chain, SHAPE, COND, sampler, generator, dtype=torch.float64, return_log_probs=True, **options
        )


def step_by_step(network, chain, states, cond):
    """Each density by torch.distributions, one step after the other."""
    found = []
    for step in range(len(chain)):
        if chain.sigma[step] == 0:
            found.append(torch.zeros(states.shape[1], dtype=torch.float64))
            continue
        t = chain.timesteps[step].expand(states.shape[1])
        mean = chain.mean(states[step], chain.x0(network(states[step], t, cond), states[step], step), step)
        found.append(Normal(mean, float(chain.sigma[step])).log_prob(states[step + 1]).sum(dim=(1, 2)))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("sampler", "target"),
    [
        ("ddpm", CHAIN),
        ("asd", CHAIN),
        ("block", CHAIN),
        ("reflection", CHAIN),
        ("residual", CHAIN),
        (make_sampler("block", steps=8), CHAIN.strided(8)),
        (make_sampler("ddim", steps=5, eta=0.7), CHAIN.with_ddim(5, 0.7)),
    ],
    ids=str,
)
def test_they_are_those_of_the_chain_that_is_walked(sampler, target):
    out = draw(sampler, return_states=True)
    with torch.no_grad():
        direct = step_by_step(NETWORK, target, out.states, COND)
    assert out.log_probs.shape == (len(target), 64) and out.log_probs.dtype == torch.float64
    torch.testing.assert_close(out.log_probs, direct, rtol=0, atol=1e-8)
    assert torch.equal(draw(sampler).states, out.states)  # they are of no use without


@pytest.mark.parametrize("sampler", ("ddpm", "asd", "block", "residual"))
def test_steps_of_exact_samplers_have_the_mean_density_of_their_noise(sampler):
    """E log N = -d (1/2 + log sigma + log(2 pi) / 2). False alarm: 5 deviations of a mean, one in two million."""
    out, size = draw(sampler, return_states=True), SHAPE[1] * SHAPE[2]
    noisy = CHAIN.sigma > 0

    def excess(network):
        with torch.no_grad():
            found = log_probs(network, CHAIN, out.states, COND)[noisy]
        expected = -size * (0.5 + CHAIN.sigma[noisy].log() + 0.5 * math.log(2 * math.pi))
        # Each is minus half a chi-squared of `size` numbers, of variance size / 2.
        return float((found - expected[:, None]).sum() / math.sqrt(found.numel() * size / 2))

    assert abs(excess(NETWORK)) < 5
    assert excess(Small(seed=1)) < -5  # under another policy they are less dense


def test_gradients_of_a_policys_ratio_run_through_them():
    states, network = draw(return_states=True).states, Small()
    old = log_probs(network, CHAIN, states, COND).detach()
    ratio = (log_probs(network, CHAIN, states, COND) - old).sum(dim=0).exp().mean()
    assert ratio.item() == pytest.approx(1)
    (gradient,) = torch.autograd.grad(ratio, network.weight)
    direction = torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    around = []
    for sign in (1, -1):
        moved = Small()
        with torch.no_grad():
            moved.weight += sign * 1e-6 * direction
            around.append((log_probs(moved, CHAIN, states, COND) - old).sum(dim=0).exp().mean())
    assert float((gradient * direction).sum()) == pytest.approx(float(around[0] - around[1]) / 2e-6, rel=1e-4)


def test_steps_without_noise_have_none_and_small_noise_is_raised_to_the_floor():
    out = draw(return_states=True)
    assert CHAIN.sigma[-1] == 0 and (out.log_probs[-1] == 0).all() and (out.log_probs[:-1] != 0).all()
    with torch.no_grad():
        floored = log_probs(NETWORK, CHAIN, out.states, COND, floor=0.3)
    large = CHAIN.sigma >= 0.3
    torch.testing.assert_close(floored[large], out.log_probs[large])
    constant = -12 * (math.log(0.3) + 0.5 * math.log(2 * math.pi))
    assert float(floored[-1].max()) == pytest.approx(constant)  # the last state is the mean itself


def test_what_has_no_densities_is_refused():
    with pytest.raises(SpecpolicyError, match="solves an equation"):
        draw("dpm_solver")
    with pytest.raises(SpecpolicyError, match="no step of this chain has noise"):
        draw(make_sampler("ddim", steps=5))
    states = draw(return_states=True).states
    with pytest.raises(SpecpolicyError, match="of 10 steps"):
        log_probs(NETWORK, CHAIN.strided(10), states, COND)
    for floor in (float("nan"), "0.1"):
        with pytest.raises(SpecpolicyError, match=r"floor=.*: expected a standard deviation"):
            log_probs(NETWORK, CHAIN, states, COND, floor=floor)


def test_what_would_be_broadcast_to_other_densities_is_refused():
    states = draw().states
    with pytest.raises(SpecpolicyError, match=r"the denoiser returned shape \(1280, 1, 3\) for states of shape"):
        log_probs(lambda x, t, cond: x[:, :1], CHAIN, states)
    with pytest.raises(SpecpolicyError, match="cond has 3 rows, the states are of 64 chunks"):
        log_probs(NETWORK, CHAIN, states, COND[:3])
    with pytest.raises(SpecpolicyError, match=r"cond is a ndarray: give a torch\.Tensor"):
        log_probs(NETWORK, CHAIN, states, COND.numpy())
    with pytest.raises(SpecpolicyError, match="chain is a NoneType: give a GaussianChain"):
        log_probs(NETWORK, None, states, COND)
    for wrong, words in ((None, "in a NoneType"), (states.numpy(), "in a ndarray"), (states[0], "of shape")):
        with pytest.raises(SpecpolicyError, match=f"states {words}.*: expected a tensor"):
            log_probs(NETWORK, CHAIN, wrong, COND)


@pytest.mark.parametrize("chain", (CHAIN, GaussianChain.from_flow(8)), ids=("ddpm", "flow"))
def test_gradients_reach_a_network_that_sees_the_drawn_states_themselves(chain):
    """Samplers draw in inference mode, whose tensors autograd refuses to keep."""
    convolution = nn.Conv1d(4, 4, 1).double()

    def network(x, t, cond):
        return convolution(x)

    denoiser = flow_denoiser(network, chain) if chain is not CHAIN else network
    source = torch.Generator().manual_seed(0)
    out = sample(denoiser, chain, (2, 4, 3), generator=source, dtype=torch.float64, return_states=True)
    found = log_probs(denoiser, chain, out.states)
    found.sum().backward()
    assert convolution.weight.grad.abs().sum() > 0
    with torch.inference_mode():
        torch.testing.assert_close(log_probs(denoiser, chain, out.states), found.detach())
