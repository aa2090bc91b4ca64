"""Rejoining: what it makes of unused noises is standard normal given the past; old paths are met as often as can be.

The false-alarm rate of a statistical test here is 1e-4; the seeds are fixed.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from exactness_cases import RejoinWithoutMirrors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from specpolicy import GaussianChain
from specpolicy.samplers.recycled.rejoin import Rejoin, quick_walk, walk_row_by_row, walk_together

CHAIN = GaussianChain.ddpm(20, prediction="sample", clip=None)
SHAPE, FIRST, WIDTH, N = (2, 2), 6, 9, 40_000
STEPS = slice(FIRST, FIRST + WIDTH)


@dataclass
class Tensors:
    """A `Walk` as tensors, with chunks (B, W, H, D)."""

    states: torch.Tensor
    noise: torch.Tensor
    joined: torch.Tensor


def walked(kind, root, old, said, noise, met, uniform, drift):
    """The walk of some rows, all given as tensors, from the first of the steps on."""
    table = (one[STEPS].expand(len(root), WIDTH) for one in (CHAIN.state_weight, CHAIN.sigma))
    drift_there = CHAIN.drift(said.view_as(noise), STEPS)
    parts = (root.flatten(1), old, drift_there.flatten(2), noise.flatten(2), *table, met, uniform)
    walk = kind(*(part.numpy() for part in parts))(drift.flatten(2).numpy())
    chunks = (torch.from_numpy(part).view_as(drift) for part in (walk.states, walk.noise))
    return Tensors(*chunks, torch.from_numpy(walk.joined))


def old_path(n, seed, off=0.3):
    """An old path of `n` rows: (states (n, W+1, d), noises, what the drafts and what the network said on it)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, WIDTH, *SHAPE, generator=generator, dtype=torch.float64)
    drafts = torch.randn(WIDTH, *SHAPE, generator=generator, dtype=torch.float64).expand_as(noise)
    root = torch.randn(*SHAPE, generator=generator, dtype=torch.float64).expand(n, *SHAPE)
    # What was guessed at a state, and what the network says there, may depend on that state.
    states, guesses = [root], []
    for step in range(WIDTH):
        guesses.append(drafts[:, step] + 0.4 * states[-1].tanh())
        at = FIRST + step
        states.append(CHAIN.mean(states[-1], guesses[-1], at) + CHAIN.shock(noise[:, step], at))
    path, guessed = torch.stack(states, dim=1), torch.stack(guesses, dim=1)
    said = guessed + off * (path[:, :-1] + 1).cos() * in_x0(off)
    return path.flatten(2), noise, guessed, said


def in_x0(sigmas):
    """The change of x0 (W, 1, 1) that moves a mean by so many sigmas."""
    return sigmas * (CHAIN.sigma[STEPS] / CHAIN.x0_weight[STEPS])[:, None, None]


def rejoin(kind, n, seed, shift=1.0, off=0.3):
    """(the walk, the guesses, the root) of paths whose roots lie `shift` sigmas from the old ones."""
    old, noise, guessed, said = old_path(n, seed, off)
    generator = torch.Generator().manual_seed(seed + 1)
    uniform = torch.rand(n, WIDTH, generator=generator, dtype=torch.float64)
    root = (old[:, 0] + shift * CHAIN.sigma[FIRST] / 2).view(-1, *SHAPE)
    met = torch.ones(n, WIDTH, dtype=torch.bool)
    new = guessed + 0.2 * in_x0(1.0)
    walk = walked(kind, root, old, said.flatten(2), noise, met, uniform, CHAIN.drift(new, STEPS))
    return walk, new, root, old, said


def test_where_it_does_not_rejoin_the_noise_is_mirrored_and_all_of_it_stays_standard_normal():
    walk, *_ = rejoin(Rejoin, N, 0)
    assert 0.05 < float(walk.joined.double().mean()) < 0.95
    noises = walk.noise.flatten(2)
    for place in range(WIDTH):
        for one in range(4):
            assert stats.kstest(noises[:, place, one].numpy(), "norm").pvalue > 1e-4 / (4 * WIDTH)
    # Neither their products nor what came before tells anything of them.
    columns = torch.cat([noises.flatten(1), walk.states.flatten(2).flatten(1)], dim=1)
    for place in range(1, WIDTH):
        past = torch.cat([columns[:, : 4 * place], columns[:, 4 * WIDTH : 4 * WIDTH + 4 * place]], dim=1)
        past = torch.cat([past, walk.joined[:, :place].double()], dim=1)
        now = torch.cat([noises[:, place], noises[:, place].square() - 1], dim=1)
        correlation = np.corrcoef(past.numpy().T, now.numpy().T)[: past.shape[1], past.shape[1] :]
        bound = stats.norm.isf(1e-4 / correlation.size / WIDTH / 2) / math.sqrt(N)
        assert np.abs(correlation).max() < 1.1 * bound  # squares have heavier tails


def test_without_the_mirror_it_would_not():
    walk, *_ = rejoin(RejoinWithoutMirrors, N, 0)
    noises = walk.noise.flatten(2)
    p = [stats.kstest(noises[:, place, one].numpy(), "norm").pvalue for place in range(WIDTH) for one in range(4)]
    assert min(p) < 1e-20


@pytest.mark.parametrize("shift", (0.0, 0.5, 2.0))
def test_old_paths_are_met_as_often_as_two_gaussians_can_be(shift):
    """At the first step, where the means are one vector apart: with probability 2 Phi(-delta / 2)."""
    walk, new, root, old, _ = rejoin(Rejoin, N, 3, shift)
    gap = CHAIN.mean(root, new[:, 0], FIRST) - old[:, 1].view(-1, *SHAPE)
    _, noise, *_ = old_path(N, 3)
    gap = gap + CHAIN.shock(noise[:, 0], FIRST)  # from the old mean to the new
    delta = (gap.flatten(1).norm(dim=1) / CHAIN.sigma[FIRST]).unique()
    assert len(delta) == 1 or float(delta.max() - delta.min()) < 1e-9
    chance = 2 * stats.norm.cdf(-float(delta[0]) / 2)
    assert stats.binomtest(int(walk.joined[:, 0].sum()), N, min(1.0, chance)).pvalue > 1e-4


def test_a_walk_takes_the_chains_steps_and_on_the_old_path_the_networks():
    walk, new, root, old, said = rejoin(Rejoin, 50, 5)
    state = root
    for place in range(WIDTH):
        at, before = FIRST + place, walk.joined[:, place - 1] if place else torch.zeros(50, dtype=bool)
        x0 = torch.where(before[:, None, None], said[:, place], new[:, place])
        state = CHAIN.mean(state, x0, at) + CHAIN.shock(walk.noise[:, place], at)
        torch.testing.assert_close(walk.states[:, place], state, rtol=1e-9, atol=1e-9)
        joined = walk.joined[:, place]
        assert torch.equal(walk.states[joined, place].flatten(1), old[joined, place + 1])
        state = walk.states[:, place]
    assert 20 < int(walk.joined.sum()) < 50 * WIDTH - 20


class InNumpy(Rejoin):
    """As it walks where numba is not installed."""

    walk = staticmethod(walk_together)


def test_it_is_compiled_here():
    """Or the tests of this file would compare numpy with itself."""
    assert quick_walk() is not walk_together and quick_walk().py_func is walk_row_by_row


@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from((0.0, 0.1, 1.0, 30.0)),
    off=st.sampled_from((0.0, 0.5, 3.0)),
    reach=st.integers(0, WIDTH),
)
@settings(max_examples=60, deadline=None)
def test_one_row_walks_in_numpy_as_many_do_compiled(seed, scale, off, reach):
    old, noise, guessed, said = old_path(4, seed, off)
    generator = torch.Generator().manual_seed(seed)
    root = old[:, 0].view(-1, *SHAPE) + scale * torch.randn(4, *SHAPE, generator=generator, dtype=torch.float64)
    uniform = torch.rand(4, WIDTH, generator=generator, dtype=torch.float64)
    met = (torch.arange(WIDTH) < reach).expand(4, -1)
    old = torch.cat([old[:, : reach + 1], torch.zeros_like(old[:, reach + 1 :])], dim=1)
    drift = CHAIN.drift(guessed + scale * in_x0(0.3), STEPS)
    parts = (root, old, said.flatten(2), noise, met, uniform)
    together = walked(Rejoin, *parts, drift)
    for row in range(4):
        alone = walked(InNumpy, *(part[row : row + 1] for part in parts), drift[row : row + 1])
        assert torch.equal(alone.joined[0], together.joined[row])
        torch.testing.assert_close(alone.states[0], together.states[row], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.noise[0], together.noise[row], rtol=1e-6, atol=1e-6)
        assert not alone.joined[0, reach:].any() and torch.equal(alone.noise[0, reach:], noise[row, reach:])


def test_a_path_that_is_the_old_one_stays_there():
    """A mean that has not moved is met whatever the numbers are."""
    old, noise, guessed, _ = old_path(1, 0)
    uniform = torch.zeros(1, WIDTH, dtype=torch.float64)
    root, met = old[:, 0].view(1, *SHAPE), torch.ones(1, WIDTH, dtype=torch.bool)
    walk = walked(Rejoin, root, old, guessed.flatten(2), noise, met, uniform, CHAIN.drift(guessed, STEPS))
    assert walk.joined.all()
    torch.testing.assert_close(walk.states.flatten(2), old[:, 1:])
    torch.testing.assert_close(walk.noise, noise)


def test_what_is_not_finite_stays_so_and_joins_nothing():
    old, noise, guessed, said = old_path(1, 0)
    root, met = old[:, 0].view(1, *SHAPE) + 1.0, torch.ones(1, WIDTH, dtype=torch.bool)
    uniform = torch.full((1, WIDTH), 0.999999, dtype=torch.float64)
    drift = CHAIN.drift(guessed, STEPS).clone()
    drift[:, 2] = math.nan
    walk = walked(Rejoin, root + 100, old, said.flatten(2), noise, met, uniform, drift)
    assert walk.states[:, 2:].isnan().all() and not walk.joined[:, 2:].any()
