"""Heads with a cache: each draw sees its own, threads may share a sampler, and the chunks are those of the chain."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from specpolicy import GaussianChain, SpecpolicyError, log_probs, sample
from specpolicy.fingerprints import weights_fingerprint
from specpolicy.integrations.velocity_heads import HeadSampler

CHAIN = GaussianChain.from_flow(8, noise_at=1)
SHAPE = (4, 3)


class Head(nn.Module):
    """The action it goes to is told by the cache."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def velocity(self, x, t, cache):
        """See `VelocityHead`: noise minus action."""
        assert t.dtype == x.dtype and len(t) == len(x)
        action = torch.tanh(self.weight * x + cache["mean"])
        return (x - action) / t[:, None, None].clamp(min=0.05)


def cache(value):
    return {"mean": torch.full((1, *SHAPE), float(value))}


@pytest.mark.parametrize("sampler", ("ddpm", "block", "recycled", "ddim-4", "euler", "rk4-4"))
def test_a_draw_is_that_of_the_denoiser_of_its_cache(sampler):
    made = HeadSampler(Head(), CHAIN, SHAPE, sampler)
    for value in (-1, 2):
        drawn = made(cache(value), torch.Generator().manual_seed(0), batch=3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            same = sample(made.denoiser(cache(value)), CHAIN, (3, *SHAPE), sampler=sampler, generator=generator)
        assert torch.equal(drawn.actions, same.actions)
        assert drawn.stats.calls.tolist() == same.stats.calls.tolist()
    assert not made._caches


@pytest.mark.parametrize("sampler", ("ddpm", "block"))
def test_there_are_as_many_chunks_as_noises(sampler):
    made, noise = HeadSampler(Head(), CHAIN, SHAPE, sampler), torch.randn(3, *SHAPE)
    drawn = made(cache(1), torch.Generator().manual_seed(0), noise=noise)
    told = made(cache(1), torch.Generator().manual_seed(0), batch=3, noise=noise)
    assert drawn.actions.shape == (3, *SHAPE) and torch.equal(drawn.actions, told.actions)
    assert made(cache(1)).actions.shape == (1, *SHAPE)
    for batch in (1, 2):
        with pytest.raises(SpecpolicyError, match="start has the shape"):
            made(cache(1), batch=batch, noise=noise)
    assert not made._caches


def test_threads_share_a_sampler_and_keep_their_caches():
    made = HeadSampler(Head(), CHAIN, SHAPE, "block")

    def draw(value):
        return made(cache(value), torch.Generator().manual_seed(value)).actions

    values = list(range(-6, 6)) * 3
    expected = [draw(value + 10) for value in values]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(draw, [value + 10 for value in values]))
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_a_cache_is_let_go_when_a_draw_fails():
    class Broken(Head):
        def velocity(self, x, t, cache):
            return torch.full_like(x, float("nan"))

    made = HeadSampler(Broken(), CHAIN, SHAPE, "ddpm")
    with pytest.raises(SpecpolicyError, match="not finite at step 0"):
        made(cache(0))
    assert not made._caches


def test_a_calibration_would_belong_to_the_weights_of_the_head():
    head = Head()
    assert HeadSampler(head, CHAIN, SHAPE).bound.setting.model.network is head
    assert weights_fingerprint(head) != weights_fingerprint(nn.Linear(1, 1))


def test_densities_of_its_steps_are_those_of_the_chain():
    made = HeadSampler(Head(), CHAIN, SHAPE, "block")
    out = sample(made.denoiser(cache(1)), CHAIN, (2, *SHAPE), sampler="block", return_states=True)
    with torch.no_grad():
        found = log_probs(made.denoiser(cache(1)), CHAIN, out.states)
        other = log_probs(made.denoiser(cache(-1)), CHAIN, out.states)
    assert bool(found.isfinite().all()) and float(found.sum()) > float(other.sum())


@pytest.mark.parametrize("batch", (1, 2))
def test_a_head_may_answer_in_half_precision(batch):
    class Half(Head):
        def velocity(self, x, t, cache):
            return super().velocity(x, t, cache).bfloat16()

    drawn = HeadSampler(Half(), CHAIN, SHAPE, "block")(cache(1), torch.Generator().manual_seed(0), batch)
    assert drawn.actions.dtype == torch.float32 and bool(drawn.actions.isfinite().all())


@pytest.mark.parametrize(
    ("head", "shape", "words"),
    (
        (None, SHAPE, r"NoneType is no head of a flow model: it has no method velocity\(x, t, cache\)"),
        (Head(), (4, 3, 1), r"shape=\(4, 3, 1\): expected \(H, D\)"),
        (Head(), 12, r"shape=12: expected \(H, D\)"),
        (Head(), ("4", 3), "expected"),
    ),
    ids=str,
)
def test_what_is_no_head_or_no_shape_is_refused(head, shape, words):
    with pytest.raises(SpecpolicyError, match=words):
        HeadSampler(head, CHAIN, shape)


def test_what_cannot_walk_the_chain_is_refused():
    for chain in (GaussianChain.ddpm(10), None):
        with pytest.raises(SpecpolicyError, match="is no chain of a flow model"):
            HeadSampler(Head(), chain, SHAPE)
    with pytest.raises(SpecpolicyError, match="dpm_solver"):
        HeadSampler(Head(), CHAIN, SHAPE, "dpm_solver")
