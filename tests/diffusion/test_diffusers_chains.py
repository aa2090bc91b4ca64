"""Whole chains against diffusers' own schedulers, with the same network, start and noises, over their settings.

A setting either gives diffusers' chain or is refused in one line; which ones are refused is said here, not found out.
"""

import itertools
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.diffusion import ChainOptions
from specpolicy.diffusion.schedules import cumulative_alphas
from specpolicy.integrations.schedulers import chain_config
from specpolicy.parsing import parse

KINDS = ("DDPM", "DDIM")
SPACINGS = ("leading", "trailing", "linspace")
# (training steps, steps): all, divisors, others, and what leaves trailing or linspace lists that DDIM does not follow.
LENGTHS = ((100, 100), (100, 10), (100, 64), (100, 16), (100, 7), (100, 3), (100, 1), (50, 20), (20, 15), (1000, 6))


def make_chain(config):
    return parse(ChainOptions, config, "the scheduler").make()


def network(x, t):
    """Some output that depends on the state and the timestep, sometimes beyond the clip."""
    return torch.tanh(1.3 * x + 0.02 * t) + 0.4 * torch.sin(0.1 * t + x)


def diffusers_chunk(scheduler, steps, start, noises, **options):
    """What diffusers draws, in float64. The n-th step takes the n-th noise, if it takes one."""
    module = type(scheduler).__module__
    scheduler.set_timesteps(steps)
    scheduler.alphas_cumprod = double_alphas(scheduler)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    state = start
    for timestep, noise in zip(scheduler.timesteps, noises, strict=True):
        with mock.patch(f"{module}.randn_tensor", lambda *_, noise=noise, **__: noise):
            state = scheduler.step(network(state, timestep), timestep, state, **options).prev_sample
    return state


def double_alphas(scheduler):
    """The table that diffusers has in float32: its rounding is not what is compared here."""
    config = scheduler.config
    table = cumulative_alphas(config.num_train_timesteps, config.beta_schedule, config.beta_start, config.beta_end)
    torch.testing.assert_close(table, scheduler.alphas_cumprod.double(), rtol=1e-3, atol=1e-6)
    return table


def our_chunk(chain, start, noises):
    state = start
    for step, noise in zip(range(len(chain)), noises, strict=True):
        output = network(state, chain.timesteps[step])
        state = chain.mean(state, chain.x0(output, state, step), step) + chain.shock(noise, step)
    return state


def refusal(train_steps, steps, spacing, offset):
    """Why these settings have no chain: diffusers then looks beyond its table. None where there is one."""
    if spacing == "trailing" and len(np.arange(train_steps, 0, -train_steps / steps)) > steps:
        return "trailing"
    last = (steps - 1) * (train_steps // steps) + offset
    return "offset" if spacing == "leading" and last >= train_steps else None


def compare(kind, lengths, spacing, offset, prediction, clip, eta, clipped, schedule, variance):
    """Whether the settings were refused, as they should be; else the chains are compared."""
    train_steps, steps = lengths
    given_settings = {
        "num_train_timesteps": train_steps,
        "beta_schedule": schedule,
        "timestep_spacing": spacing,
        "steps_offset": offset,
        "prediction_type": prediction,
        "clip_sample": clip is not None,
        "clip_sample_range": clip or 1.0,
    }
    if kind == "DDPM":
        given_settings["variance_type"] = variance
        step_options, options = {}, {}
    else:
        step_options = {"eta": eta, "use_clipped_model_output": clipped}
        options = {"eta": eta, "reuse_epsilon": not clipped}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**given_settings)
    reason = refusal(train_steps, steps, spacing, offset)
    if reason is not None:
        with pytest.raises(SpecpolicyError, match=reason) as error:
            make_chain(chain_config(f"{kind}Scheduler", dict(scheduler.config), steps, **options))
        assert "\n" not in str(error.value)
        return True
    chains = [make_chain(chain_config(f"{kind}Scheduler", dict(scheduler.config), steps, **options))]
    generator = torch.Generator().manual_seed(steps)
    start = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64)
    noises = torch.randn(steps, 2, 3, 2, generator=generator, dtype=torch.float64)
    expected = diffusers_chunk(scheduler, steps, start, noises, **step_options)
    if kind == "DDPM" or (eta == 1 and not clipped):
        chains.append(GaussianChain.from_diffusers(scheduler))
    for chain in chains:
        assert chain.timesteps.tolist() == scheduler.timesteps.tolist()
        scale = max(1.0, float(expected.abs().max()))  # without a clip a chain may grow
        torch.testing.assert_close(our_chunk(chain, start, noises), expected, rtol=0, atol=1e-5 * scale)
    return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_spacing_and_length(kind, spacing, lengths):
    """Also beyond the offsets at which the last step of DDIM is left with noise."""
    refused = [
        offset
        for offset in (0, 1, 3, 20)
        if compare(kind, lengths, spacing, offset, "epsilon", 1.0, 1.0, False, "squaredcos_cap_v2", "fixed_small")
    ]
    room = lengths[0] - 1 - (lengths[1] - 1) * (lengths[0] // lengths[1])
    assert refused == ([offset for offset in (0, 1, 3, 20) if offset > room] if spacing == "leading" else [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "prediction, clip", itertools.product(("epsilon", "sample", "v_prediction"), (None, 0.5, 1.0)), ids=str
)
def test_every_prediction_and_clip(kind, prediction, clip):
    step_options = itertools.product((0.0, 0.6, 1.0), (False, True)) if kind == "DDIM" else [(0.0, False)]
    variances = ("fixed_small", "fixed_small_log", "fixed_large") if kind == "DDPM" else ("fixed_small",)
    for spacing, (eta, clipped), variance in itertools.product(SPACINGS, step_options, variances):
        assert not compare(kind, (100, 16), spacing, 1, prediction, clip, eta, clipped, "linear", variance)


def test_how_many_settings_are_refused():
    """Without an offset 346 of 24,768, all numbers of steps up to 128 with all spacings, and trailing alone."""
    cases = [(train, steps) for train in range(1, 129) for steps in range(1, train + 1)]
    found = [(*case, spacing) for case in cases for spacing in SPACINGS if refusal(*case, spacing, 0) is not None]
    for train_steps, steps, spacing in found:
        with pytest.raises(SpecpolicyError, match=spacing):
            GaussianChain.ddpm(train_steps, steps, spacing=spacing)
    assert len(found) == 346 and len(cases) == 8256 and {spacing for *_, spacing in found} == {"trailing"}


@settings(max_examples=80, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    train_steps=st.sampled_from((10, 50, 97, 100, 128)),
    share=st.floats(0.01, 1.0),
    spacing=st.sampled_from(SPACINGS),
    offset=st.integers(0, 12),
    prediction=st.sampled_from(("epsilon", "sample", "v_prediction")),
    clip=st.sampled_from((None, 0.7, 1.0)),
    eta=st.sampled_from((0.0, 0.3, 1.0)),
    clipped=st.booleans(),
    schedule=st.sampled_from(("linear", "scaled_linear", "squaredcos_cap_v2")),
    variance=st.sampled_from(("fixed_small", "fixed_large")),
)
def test_any_settings(kind, train_steps, share, spacing, offset, prediction, clip, eta, clipped, schedule, variance):
    lengths = train_steps, max(1, int(share * train_steps))
    compare(kind, lengths, spacing, offset, prediction, clip, eta, clipped, schedule, variance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "setting, value",
    (
        ("thresholding", True),
        ("trained_betas", [0.1] * 100),
        ("rescale_betas_zero_snr", True),
        ("set_alpha_to_one", False),
        ("variance_type", "learned_range"),
        ("variance_type", "fixed_large_log"),
        ("beta_schedule", "sigmoid"),
        ("prediction_type", "flow"),
        ("timestep_spacing", "dense"),
        ("steps_offset", -1),
        ("clip_sample_range", 0.0),
        ("num_train_timesteps", "many"),
        ("use_karras_sigmas", True),
        ("beta_end", 1.5),
    ),
    ids=str,
)
def test_what_no_chain_reproduces_is_refused_by_name(kind, setting, value):
    with pytest.raises(SpecpolicyError) as error:
        make_chain(chain_config(f"{kind}Scheduler", {"num_train_timesteps": 100, setting: value}, 10))
    named = {"clip_sample_range": "clip", "steps_offset": "offset", "num_train_timesteps": "many"}
    assert named.get(setting, str(value) if setting.endswith(("type", "schedule", "spacing")) else setting) in str(
        error.value
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("eta", (-0.1, 1.5, float("nan"), float("inf")))
def test_an_eta_without_a_chain(eta):
    with pytest.raises(SpecpolicyError, match="eta"):
        make_chain(chain_config("DDIMScheduler", {}, 10, eta))


@pytest.mark.parametrize("options", ({"eta": 0.5}, {"reuse_epsilon": False}))
def test_options_of_ddim_are_not_ddpms(options):
    with pytest.raises(SpecpolicyError, match="DDIMScheduler"):
        chain_config("DDPMScheduler", {}, 10, **options)


def test_settings_without_effect_are_taken():
    config = {**diffusers.DDPMScheduler(100).config, "sample_max_value": 3.0, "dynamic_thresholding_ratio": 0.5}
    assert len(make_chain(chain_config("diffusers.schedulers.DDPMScheduler", config, 10))) == 10


def test_betas_that_the_schedule_has_no_use_for_may_be_anything():
    settings = {"num_train_timesteps": 20, "beta_start": 0.0, "beta_end": 1.0}
    cosine = make_chain(chain_config("DDPMScheduler", {**settings, "beta_schedule": "squaredcos_cap_v2"}, 20))
    scheduler = diffusers.DDPMScheduler(20, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(cosine.process.alpha_bar.float(), scheduler.alphas_cumprod, rtol=1e-5, atol=1e-7)
    with pytest.raises(SpecpolicyError, match="beta_start is 0"):
        make_chain(chain_config("DDPMScheduler", {**settings, "beta_schedule": "linear"}, 20))
