"""Picard iteration: the sequential path at tolerance zero, near it at others, and its book-keeping."""

import pytest
import torch

from specpolicy import GaussianChain, SpecpolicyError, make_sampler, sample
from specpolicy.model import Model
from specpolicy.samplers import Setting
from specpolicy.samplers.base import Chunks
from specpolicy.samplers.sequential import DDPM

SHAPE = (4, 2)
WEIGHT = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))


def denoiser(x, t, cond):
    """A bent denoiser of chunks whose mean depends on the condition."""
    return torch.tanh(x @ WEIGHT + cond[:, None, :])


class Given:
    """A source of noise by step (B, K, H, D): all at once, or one step after another."""

    def __init__(self, noise):
        self.noise, self.step = noise, 0

    def normal(self, *shape, rows=None):
        """See `NoiseSource.normal`."""
        if len(shape) == 3:
            return self.noise
        self.step += 1
        return self.noise[:, self.step - 1]


def both(chain, batch=3, **options):
    """(Picard's sample, the sequential one) with the same noises."""
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(batch, *SHAPE, generator=generator)
    noise = torch.randn(batch, len(chain), *SHAPE, generator=generator)
    cond = torch.randn(batch, 2, generator=generator)
    picard = make_sampler("picard", **options)
    setting = Setting(Model(denoiser), chain, torch.Size(SHAPE))
    return tuple(
        sampler.bind(setting)(Model(denoiser), Chunks(state, cond, Given(noise), True)) for sampler in (picard, DDPM())
    )


CHAINS = {
    "ddpm": GaussianChain.ddpm(20, prediction="sample"),
    "fixed_large": GaussianChain.ddpm(100, 12, prediction="v_prediction", variance="fixed_large"),
    "epsilon": GaussianChain.ddpm(20),
    "ddim": GaussianChain.ddpm(100).with_ddim(10, eta=0.5),
}


@pytest.mark.parametrize("window", (1, 5, None))
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_at_tolerance_zero_the_path_is_the_sequential_one(chain, window):
    picard, sequential = both(chain, tolerance=0.0, window=window)
    torch.testing.assert_close(picard.states, sequential.states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(picard.actions, sequential.actions, rtol=1e-4, atol=1e-4)
    assert torch.equal(picard.states[-1], picard.actions)
    assert picard.stats.calls.max() <= len(chain)
    if window == 1:
        assert picard.stats.calls.tolist() == picard.stats.rows.tolist() == [len(chain)] * 3


def test_a_larger_tolerance_takes_fewer_calls_and_ends_further_off():
    calls, errors = [], []
    for tolerance in (0.0, 0.03, 0.3, 3.0):
        picard, sequential = both(CHAINS["ddpm"], tolerance=tolerance)
        calls.append(int(picard.stats.calls[0]))
        errors.append(float((picard.actions - sequential.actions).abs().mean()))
    assert calls == sorted(calls, reverse=True) and calls[0] > calls[-1] <= 4
    assert errors[0] < 1e-4 < errors[-1] and errors[1] < errors[-1]


@pytest.mark.parametrize("eta", (0.0, 1.0))
def test_a_constant_network_is_settled_in_two_sweeps(eta):
    chain = GaussianChain.ddpm(100, prediction="sample").with_ddim(50, eta=eta)
    constant = lambda x, t, cond: torch.full_like(x, 0.4)  # noqa: E731
    out = sample(constant, chain, (2, 4, 2), None, "picard", torch.Generator().manual_seed(0))
    assert out.stats.calls.tolist() == [2, 2]


def test_rows_are_counted():
    sizes = []

    def watching(x, t, cond):
        sizes.append(len(x))
        return denoiser(x, t, cond)

    cond = torch.zeros(3, 2)
    out = sample(watching, CHAINS["ddpm"], (3, *SHAPE), cond, make_sampler("picard", window=6))
    assert sum(sizes) == int(out.stats.rows.sum()) and out.stats.calls.tolist() == [len(sizes)] * 3
    assert max(sizes) == 18


def test_edges():
    cond = torch.zeros(1, 2)
    assert sample(denoiser, CHAINS["ddpm"], (0, *SHAPE), cond, "picard").actions.shape == (0, *SHAPE)
    one = GaussianChain.ddpm(20, 1, prediction="sample")
    picard, sequential = both(one)
    assert picard.stats.calls.tolist() == [1] * 3
    torch.testing.assert_close(
        picard.actions, sequential.actions, rtol=1e-6, atol=1e-6
    )  # rounded by the CPU's own product
    two, _ = both(CHAINS["ddpm"].strided(2), window=7)
    assert two.stats.calls.max() <= 2


def test_a_network_that_returns_nan_is_named_with_its_step():
    def broken(x, t, cond):
        return torch.where(t.view(-1, 1, 1) == 7, torch.nan, x)

    for window in (1, 4, None):
        with pytest.raises(SpecpolicyError, match=r"timestep \d+") as error:
            sample(broken, CHAINS["ddpm"], (2, *SHAPE), None, make_sampler("picard", window=window))
        assert "step 12 (timestep 7)" in str(error.value)
