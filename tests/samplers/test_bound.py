"""A sampler that is bound draws what `sample` draws, as often as it is asked, and settles everything beforehand."""

import threading
from dataclasses import replace

import pytest
import torch

from specpolicy import Calibration, GaussianChain, SpecpolicyError, make_sampler, sample
from specpolicy.model import Model
from specpolicy.samplers import BoundSampler, Setting
from specpolicy.samplers.recycled.calibration.calibration import Plan
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate

CHAIN, SHAPE = GaussianChain.ddpm(20), torch.Size((4, 2))
NAMES = ("ddpm", "ddim-5", "dpm_solver-5", "picard", "asd", "reflection", "residual", "block", "recycled")


def denoiser(x, t, cond):
    return torch.tanh(x + cond[:, None, :]) + 0.01 * t[:, None, None]


def setting(**changes):
    return replace(Setting(Model(denoiser), CHAIN, SHAPE), **changes)


def conditions(count):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(1))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
def test_it_draws_what_sample_draws_again_and_again(name):
    bound = BoundSampler(make_sampler(name), setting())
    for seed, batch in ((0, 1), (1, 3), (0, 1)):
        cond = conditions(batch)
        out = bound(batch, cond, seeded(seed), return_states=True)
        expected = sample(denoiser, CHAIN, (batch, *SHAPE), cond, name, seeded(seed), return_states=True)
        assert torch.equal(out.actions, expected.actions) and torch.equal(out.states, expected.states)
        assert out.stats.calls.tolist() == expected.stats.calls.tolist()
        assert out.stats.rows_by_call == expected.stats.rows_by_call
        assert sum(out.stats.rows_by_call) == int(out.stats.rows.sum())
        assert 0 < out.stats.network_seconds < out.stats.seconds


@pytest.mark.parametrize("batch", (1, 2))
@pytest.mark.parametrize("name", NAMES)
def test_threads_may_share_it(name, batch):
    bound, cond, found = BoundSampler(make_sampler(name), setting()), conditions(batch), {}
    expected = {seed: bound(batch, cond, seeded(seed)) for seed in range(4)}

    def work(seed):
        found[seed] = bound(batch, cond, seeded(seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, out in expected.items():
        assert torch.equal(found[seed].actions, out.actions)
        assert found[seed].stats.rows_by_call == out.stats.rows_by_call


def test_the_initial_noise_may_be_given():
    bound, cond, start = BoundSampler(make_sampler("ddim"), setting()), conditions(2), torch.randn(2, *SHAPE)
    first, second = (bound(2, cond, seeded(seed), start=start, return_states=True) for seed in (0, 1))
    assert torch.equal(first.states[0], start) and torch.equal(first.actions, second.actions)


def test_what_does_not_go_together_is_refused_when_it_is_bound():
    with pytest.raises(SpecpolicyError, match="adds no noise"):
        BoundSampler(make_sampler("asd", steps=5, eta=0.0), setting())
    with pytest.raises(SpecpolicyError, match="draft_denoiser="):
        BoundSampler(make_sampler("block", drafter="independent"), setting())
    with pytest.raises(SpecpolicyError, match="head="):
        BoundSampler(make_sampler("block", drafter="corrected"), setting())
    other = Calibration(GaussianSurrogate(GaussianChain.ddpm(30).process.alpha_bar, tuple(SHAPE), 2))
    for made, where in (
        (make_sampler("recycled"), setting(calibration=other)),
        (make_sampler("recycled", calibration=other), setting()),
    ):
        with pytest.raises(SpecpolicyError, match="30 training steps"):
            BoundSampler(made, where)
    BoundSampler(make_sampler("recycled", calibrated=False), setting(calibration=other))


def test_parts_of_the_setting_serve_where_the_sampler_has_none_of_its_own():
    drafted = []

    def draft(x, t, cond):
        drafted.append(len(x))
        return denoiser(x, t, cond)

    made = make_sampler("reflection", drafter="independent")
    BoundSampler(made, setting(draft_denoiser=draft))(1, conditions(1), seeded(0))
    asked = len(drafted)
    assert asked > 0
    own = make_sampler("reflection", drafter="independent", draft_denoiser=denoiser)
    BoundSampler(own, setting(draft_denoiser=draft))(1, conditions(1), seeded(0))
    assert len(drafted) == asked


def test_the_plan_is_that_of_the_backend():
    prior = GaussianSurrogate(CHAIN.process.alpha_bar, tuple(SHAPE), 2)
    plans = {"cpu": {20: Plan([3] * 20, 2, False, 0.0, 0.0)}, "cuda": {20: Plan([5] * 20, 1, False, 0.0, 0.0)}}
    calibrated = setting(calibration=Calibration(prior, plans=plans))
    sampler = make_sampler("recycled")
    elsewhere = replace(calibrated, model=Model(denoiser, torch.device("cuda")))
    for made, where, window, sweeps in (
        (sampler, calibrated, [3] * 20, 2),
        (sampler, elsewhere, [5] * 20, 1),
        (make_sampler("recycled", window=7, sweeps=4), calibrated, 7, 4),
    ):
        draw = made.bind(where)
        assert draw.window == window and draw.drafter.sweeps == sweeps


@pytest.mark.parametrize("rows", (2, 4))
def test_conditions_that_do_not_fit_are_refused(rows):
    with pytest.raises(SpecpolicyError, match=f"cond has {rows} rows, the batch has 3"):
        BoundSampler(make_sampler("ddpm"), setting())(3, conditions(rows))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", ((1, *SHAPE), (2, *SHAPE), SHAPE, (3, 2, 4)))
def test_a_start_of_another_batch_is_refused(name, shape):
    bound = BoundSampler(make_sampler(name), setting())
    with pytest.raises(SpecpolicyError, match=r"start has the shape .*, the batch needs \(3, 4, 2\)"):
        bound(3, conditions(3), seeded(0), start=torch.zeros(shape))


@pytest.mark.parametrize("batch", (-1, 1.5, "2", True))
def test_a_batch_that_is_none_is_refused(batch):
    with pytest.raises(SpecpolicyError, match=r"a batch of .* chunks: expected a whole number, 0 or more"):
        BoundSampler(make_sampler("ddpm"), setting())(batch, conditions(1))


def test_noise_that_is_no_tensor_is_refused():
    with pytest.raises(SpecpolicyError, match=r"start is a ndarray: give the noise as a torch\.Tensor"):
        BoundSampler(make_sampler("ddpm"), setting())(1, conditions(1), start=conditions(4)[None].numpy())
