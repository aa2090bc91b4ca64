"""The chain's coefficients against diffusers' schedulers, and the identities they must satisfy."""

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.diffusion.schedules import cumulative_alphas, inference_timesteps

PREDICTIONS = ("epsilon", "sample", "v_prediction")


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", (True, False))
@pytest.mark.parametrize("variance", ("fixed_small", "fixed_large"))
@pytest.mark.parametrize("steps", (100, 16))
@pytest.mark.parametrize("spacing, tolerance", (("leading", 1e-5), ("trailing", 1e-4), ("linspace", 1e-4)))
def test_every_ddpm_step_agrees_with_diffusers(prediction, clip, variance, steps, spacing, tolerance):
    """From the same state, output and noise, each single step agrees in float32.

    Long strides from timestep 99, where 1 / sqrt(abar) is 2,000, amplify float32 rounding: hence two tolerances.
    """
    scheduler = diffusers.DDPMScheduler(
        100,
        beta_schedule="squaredcos_cap_v2",
        variance_type=variance,
        clip_sample=clip,
        prediction_type=prediction,
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    ours = GaussianChain.ddpm(
        100, steps, variance=variance, prediction=prediction, clip=1.0 if clip else None, spacing=spacing
    )
    generator = torch.Generator().manual_seed(3)
    assert ours.timesteps.tolist() == scheduler.timesteps.tolist()
    for step, timestep in enumerate(scheduler.timesteps):
        chunk = 0.5 * torch.randn(2, 16, 7, generator=generator)
        noise = torch.randn(2, 16, 7, generator=generator)
        state = scheduler.add_noise(chunk, noise, timestep)
        error = 0.1 * torch.randn(2, 16, 7, generator=generator)
        alpha_bar = scheduler.alphas_cumprod[timestep]
        # What a good network would say at this state, with an error that exercises the clip.
        output = {
            "epsilon": noise + error * alpha_bar.sqrt(),
            "sample": chunk + error,
            "v_prediction": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * chunk + error * alpha_bar.sqrt(),
        }[prediction]
        xi = torch.Generator().manual_seed(int(timestep))
        expected = scheduler.step(output, timestep, state, generator=xi).prev_sample
        mean = ours.mean(state, ours.x0(output, state, step), step)
        xi = torch.randn(state.shape, generator=torch.Generator().manual_seed(int(timestep)))
        actual = mean + ours.shock(xi, step)
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("eta", (0.0, 0.5, 1.0))
@pytest.mark.parametrize("clip", (True, False))
@pytest.mark.parametrize("reuse_epsilon", (True, False))
def test_every_ddim_step_agrees_with_diffusers(eta, clip, reuse_epsilon):
    scheduler = diffusers.DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", clip_sample=clip)
    scheduler.set_timesteps(10)
    chain = GaussianChain.ddpm(clip=1.0 if clip else None).with_ddim(10, eta, reuse_epsilon=reuse_epsilon)
    generator = torch.Generator().manual_seed(5)
    assert chain.timesteps.tolist() == scheduler.timesteps.tolist()
    for step, timestep in enumerate(scheduler.timesteps):
        state, output, noise = (torch.randn(1, 8, 2, generator=generator) for _ in range(3))
        expected = scheduler.step(
            output,
            timestep,
            state,
            eta=eta,
            use_clipped_model_output=not reuse_epsilon,
            variance_noise=noise if eta else None,
        ).prev_sample
        actual = chain.mean(state, chain.x0(output, state, step), step) + chain.shock(noise, step)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"))
def test_alpha_bar_agrees_with_diffusers(schedule):
    expected = diffusers.DDPMScheduler(100, beta_schedule=schedule).alphas_cumprod.double()
    torch.testing.assert_close(cumulative_alphas(100, schedule), expected, rtol=2e-5, atol=1e-7)


@given(
    train_steps=st.integers(2, 200),
    share=st.floats(0.01, 1.0),
    schedule=st.sampled_from(("linear", "squaredcos_cap_v2")),
    variance=st.sampled_from(("fixed_small", "fixed_large")),
)
def test_the_chain_keeps_the_marginals_of_the_forward_process(train_steps, share, schedule, variance):
    """With the true x0, a step turns the marginal at its timestep into the marginal at the next one.

    The mean coefficients satisfy A sqrt(abar) + B = sqrt(abar_next); for the small variance also
    A^2 (1 - abar) + sigma^2 = 1 - abar_next.
    """
    steps = max(1, int(share * train_steps))
    chain = GaussianChain.ddpm(train_steps, steps, schedule, variance)
    signal = chain.state_weight * chain.alpha_bar.sqrt() + chain.x0_weight
    torch.testing.assert_close(signal, chain.alpha_bar_next.sqrt(), rtol=1e-9, atol=1e-9)
    if variance == "fixed_small":
        spread = chain.state_weight**2 * (1 - chain.alpha_bar) + chain.sigma**2
        torch.testing.assert_close(spread, 1 - chain.alpha_bar_next, rtol=1e-9, atol=1e-9)


def test_the_last_step_is_the_clipped_x0():
    chain = GaussianChain.ddpm()
    state, last = torch.randn(1, 4, 2), len(chain) - 1
    x0 = torch.tensor([[[3.0, -3.0], [0.2, -0.2], [1.0, 0.0], [0.5, 2.0]]])
    assert chain.sigma[-1] == 0 and chain.timesteps[-1] == 0
    # The output that says so at this state.
    signal = chain.alpha_bar[-1]
    output = ((state - signal.sqrt() * x0) / (1 - signal).sqrt()).float()
    torch.testing.assert_close(
        chain.mean(state, chain.x0(output, state, last), last), x0.clamp(-1, 1), rtol=1e-4, atol=1e-5
    )


def test_gain_over_noise_is_the_root_of_the_difference_in_signal_to_noise():
    """B_n / sigma_n = sqrt(SNR_next - SNR_n), which says how hard each step is to speculate on."""
    chain = GaussianChain.ddpm()
    snr, following = (a / (1 - a) for a in (chain.alpha_bar[:-1], chain.alpha_bar_next[:-1]))
    torch.testing.assert_close(chain.x0_weight[:-1] / chain.sigma[:-1], (following - snr).sqrt(), rtol=1e-9, atol=0)


@given(steps=st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_rows_at_their_own_steps_equal_one_row_at_a_time(steps):
    chain = GaussianChain.ddpm()
    generator = torch.Generator().manual_seed(len(steps))
    state, output = (torch.randn(len(steps), 3, 2, generator=generator) for _ in range(2))
    index = torch.tensor(steps)
    together = chain.mean(state, chain.x0(output, state, index), index)
    for row, step in enumerate(steps):
        one = slice(row, row + 1)
        alone = chain.mean(state[one], chain.x0(output[one], state[one], step), step)
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(chain.shock(state, index)[one], chain.shock(state[one], step), rtol=1e-6, atol=1e-6)


def test_from_diffusers_takes_the_scheduler_as_it_stands():
    scheduler = diffusers.DDPMScheduler(100, beta_schedule="linear", variance_type="fixed_large", clip_sample=False)
    scheduler.set_timesteps(20)
    chain = GaussianChain.from_diffusers(scheduler)
    assert len(chain) == 20 and chain.process.clip is None and chain.process.variance == "fixed_large"
    ddim = GaussianChain.from_diffusers(diffusers.DDIMScheduler(50))
    assert ddim.eta == 1.0 and len(ddim) == 50 and bool((ddim.sigma[:-1] > 0).all())


@pytest.mark.parametrize(
    "make",
    (
        lambda: GaussianChain.ddpm(steps=101),
        lambda: GaussianChain.ddpm(prediction="noise"),
        lambda: GaussianChain.ddpm(variance="learned"),
        lambda: GaussianChain.ddpm(beta_schedule="cosine"),
        lambda: GaussianChain.ddpm(spacing="dense"),
        lambda: GaussianChain.ddpm(clip=-1.0),
        lambda: GaussianChain.ddpm(offset=5, steps=100),
        lambda: GaussianChain.ddpm().with_ddim(10, eta=-0.1),
        lambda: GaussianChain.from_diffusers(diffusers.EulerDiscreteScheduler()),
        lambda: GaussianChain.from_diffusers(diffusers.DDPMScheduler(variance_type="learned")),
        lambda: GaussianChain.from_diffusers(diffusers.DDIMScheduler(set_alpha_to_one=False)),
    ),
)
def test_bad_input_is_one_clear_line(make):
    with pytest.raises(SpecpolicyError) as error:
        make()
    assert "\n" not in str(error.value)


def test_leading_timesteps_are_those_of_diffusers():
    assert inference_timesteps(100, 16).tolist() == [*range(90, -1, -6)]
