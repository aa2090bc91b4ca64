"""Sequential samplers: whole chains against diffusers, their distribution, their bookkeeping and their errors."""

import diffusers
import pytest
import torch
from in_place import InPlace
from scipy import stats

from specpolicy import GaussianChain, SpecpolicyError, make_sampler, sample
from specpolicy.engines.base import Workload
from specpolicy.engines.eager import EagerEngine
from specpolicy.model import Model
from specpolicy.samplers import BoundSampler, Setting

WEIGHT = 0.3 * torch.randn(7, 7, generator=torch.Generator().manual_seed(0))


def denoiser(x, t, cond):
    """A smooth denoiser that reads the state, the timestep and the condition."""
    output = torch.tanh(x @ WEIGHT) + 0.01 * t[:, None, None]
    return output if cond is None else output + 0.1 * cond[:, None, :]


@pytest.mark.parametrize("prediction", ("epsilon", "sample", "v_prediction"))
@pytest.mark.parametrize("variance", ("fixed_small", "fixed_large"))
@pytest.mark.parametrize("steps", (100, 16))
def test_ddpm_walks_the_chain_of_diffusers(prediction, variance, steps):
    scheduler = diffusers.DDPMScheduler(
        100, beta_schedule="squaredcos_cap_v2", variance_type=variance, prediction_type=prediction
    )
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(3, 16, 7, generator=generator)
    states = [state]
    for timestep in scheduler.timesteps:
        state = scheduler.step(
            denoiser(state, timestep.expand(3), None), timestep, state, generator=generator
        ).prev_sample
        states.append(state)
    chain = GaussianChain.ddpm(variance=variance, prediction=prediction)
    out = sample(
        denoiser,
        chain,
        (3, 16, 7),
        sampler=make_sampler("ddpm", steps=steps),
        generator=torch.Generator().manual_seed(1),
        return_states=True,
    )
    # The rounding of a hundred steps adds up, and the scheduler keeps its tables in float32.
    torch.testing.assert_close(out.states, torch.stack(states), rtol=1e-4, atol=5e-5)
    assert out.states.shape == (steps + 1, 3, 16, 7)
    assert out.stats.calls.tolist() == out.stats.rows.tolist() == [steps] * 3


@pytest.mark.parametrize("eta", (0.0, 0.7))
def test_ddim_walks_the_chain_of_diffusers(eta):
    scheduler = diffusers.DDIMScheduler(100, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(2, 16, 7, generator=generator)
    for timestep in scheduler.timesteps:
        output = denoiser(state, timestep.expand(2), None)
        state = scheduler.step(output, timestep, state, eta=eta, generator=generator if eta else None).prev_sample
    ddim = make_sampler("ddim", steps=10, eta=eta)
    out = sample(denoiser, GaussianChain.ddpm(), (2, 16, 7), sampler=ddim, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(out.actions, state, rtol=1e-4, atol=1e-5)


def gaussian_denoiser(mean, spread, chain):
    """The exact x0 denoiser of N(mean, spread^2) data, as an unclipped 'sample' prediction."""
    alpha_bar = chain.process.alpha_bar

    def denoise(x, t, cond):
        a = alpha_bar[t].reshape(-1, 1, 1)
        gain = a.sqrt() * spread**2 / (a * spread**2 + 1 - a)
        return (mean + gain * (x - a.sqrt() * mean)).to(x.dtype)

    return denoise


def gaussian_distribution(chain, mean, spread):
    """(mean, standard deviation) of the chain's samples for that denoiser: every step is affine, so exactly."""
    alpha_bar = chain.alpha_bar
    gain = alpha_bar.sqrt() * spread**2 / (alpha_bar * spread**2 + 1 - alpha_bar)
    slope = chain.state_weight + chain.x0_weight * gain
    shift = chain.x0_weight * mean * (1 - gain * alpha_bar.sqrt())
    centre, variance = 0.0, 1.0
    for step in range(len(chain)):
        centre = float(slope[step]) * centre + float(shift[step])
        variance = float(slope[step]) ** 2 * variance + float(chain.sigma[step]) ** 2
    return centre, variance**0.5


@pytest.mark.parametrize("steps", (100, 16))
@pytest.mark.parametrize("variance", ("fixed_small", "fixed_large"))
@pytest.mark.parametrize("eta", (None, 0.0, 0.8))
def test_samples_have_the_distribution_of_the_chain(steps, variance, eta):
    """KS test of 20,000 coordinates against the chain's own Gaussian, false alarm 1e-4 a case.

    Negative control: a spread that is 10 % wrong fails the same test.
    """
    chain = GaussianChain.ddpm(prediction="sample", clip=None, variance=variance)
    name, options = ("ddpm", {"steps": steps}) if eta is None else ("ddim", {"steps": steps, "eta": eta})
    distribution = gaussian_distribution(chain.strided(steps) if eta is None else chain.with_ddim(steps, eta), 0.3, 0.2)
    out = sample(
        gaussian_denoiser(0.3, 0.2, chain),
        chain,
        (5000, 2, 2),
        sampler=make_sampler(name, **options),
        generator=torch.Generator().manual_seed(11),
    )
    values = (out.actions.flatten().numpy() - distribution[0]) / distribution[1]
    assert stats.kstest(values, "norm").pvalue > 1e-4
    assert stats.kstest(1.1 * values, "norm").pvalue < 1e-4


def test_dpm_solver_comes_close_to_the_data_in_twenty_calls():
    chain = GaussianChain.ddpm(prediction="sample", clip=None)
    solver = make_sampler("dpm_solver", steps=20)
    denoise = gaussian_denoiser(0.3, 0.2, chain)
    values = sample(denoise, chain, (5000, 2, 2), sampler=solver, generator=torch.Generator().manual_seed(11)).actions
    assert abs(float(values.mean()) - 0.3) < 0.03 and abs(float(values.std()) / 0.2 - 1) < 0.08


@pytest.mark.parametrize("steps", (1, 2, 3, 10, 16))
@pytest.mark.parametrize("order", (1, 2, 3))
@pytest.mark.parametrize("spacing, offset", (("leading", 0), ("leading", 1), ("trailing", 0), ("linspace", 0)))
def test_dpm_solver_walks_as_that_of_diffusers(steps, order, spacing, offset):
    """Whole chunks, over kinds of prediction and with and without a clip; the scheduler is given x0 itself."""
    for prediction, clip in (("epsilon", 1.0), ("v_prediction", None), ("sample", 1.0)):
        chain = GaussianChain.ddpm(prediction=prediction, clip=clip, spacing=spacing, offset=offset, steps=50)
        process = chain.process
        alphas = process.alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), process.alpha_bar[:-1]])
        scheduler = diffusers.DPMSolverMultistepScheduler(
            100,
            trained_betas=(1 - alphas).numpy(),
            prediction_type="sample",
            solver_order=order,
            timestep_spacing=spacing,
            steps_offset=offset,
        )
        scheduler.set_timesteps(steps)
        state = torch.randn(2, 8, 7, generator=torch.Generator().manual_seed(1))
        from_state, from_output = (table.tolist() for table in process.x0_coefficients(scheduler.timesteps))
        for step, timestep in enumerate(scheduler.timesteps):
            output = denoiser(state, timestep.expand(2), None)
            x0 = process.clipped(from_state[step] * state + from_output[step] * output)
            state = scheduler.step(x0, timestep, state).prev_sample
        solver = make_sampler("dpm_solver", steps=steps, order=order)
        out = sample(denoiser, chain, (2, 8, 7), sampler=solver, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(out.actions, state, rtol=1e-5, atol=1e-5)
        assert out.stats.calls.tolist() == [steps] * 2


def test_a_solver_that_is_not_there_is_one_clear_line():
    with pytest.raises(SpecpolicyError, match="'order' of sampler 'dpm_solver' must be 1, 2 or 3, got 4"):
        make_sampler("dpm_solver", order=4)
    with pytest.raises(SpecpolicyError, match="no 100 timesteps in a training of 100: choose other steps"):
        sample(denoiser, GaussianChain.ddpm(), (1, 2, 7), sampler=make_sampler("dpm_solver-100"))


def test_one_generator_per_row_makes_rows_independent_of_the_batch():
    chain, cond = GaussianChain.ddpm(20, 20), torch.randn(4, 7)

    def run(rows):
        generators = [torch.Generator().manual_seed(100 + row) for row in rows]
        return sample(denoiser, chain, (len(rows), 8, 7), cond[rows], generator=generators).actions

    together = run([0, 1, 2, 3])
    for rows in ([2], [3, 1]):
        torch.testing.assert_close(run(rows), together[rows], rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_chunk():
    chain = GaussianChain.ddpm(20, 20)
    first, second = (
        sample(denoiser, chain, (2, 8, 7), generator=torch.Generator().manual_seed(4)).actions for _ in range(2)
    )
    assert torch.equal(first, second)


def test_an_empty_batch_and_a_single_condition():
    chain = GaussianChain.ddpm(10, 10)
    assert sample(denoiser, chain, (0, 8, 7)).actions.shape == (0, 8, 7)
    assert sample(denoiser, chain, (3, 8, 7), cond=torch.randn(1, 7)).actions.shape == (3, 8, 7)


@pytest.mark.parametrize("name", ("ddpm", "ddim", "dpm_solver"))
def test_a_denoiser_that_returns_nan_is_named_with_its_step(name):
    def broken(x, t, cond):
        return torch.where(t.reshape(-1, 1, 1) <= 50, torch.nan, 0.1) * torch.ones_like(x)

    with pytest.raises(SpecpolicyError, match=r"timestep (50|40|4\d)"):
        sample(broken, GaussianChain.ddpm(), (1, 8, 7), sampler=name)


def test_time_in_the_network_is_part_of_the_time():
    out = sample(denoiser, GaussianChain.ddpm(), (1, 8, 7))
    assert 0 < out.stats.network_seconds < out.stats.seconds


@pytest.mark.parametrize(
    "call, word",
    (
        (lambda: make_sampler("ddpmm"), "did you mean 'ddpm'"),
        (lambda: make_sampler("ddim", step=4), "did you mean 'steps'"),
        (lambda: make_sampler("ddim", steps=0), "positive"),
        (lambda: make_sampler("ddim", eta=-1), "zero or positive"),
        (lambda: sample(denoiser, GaussianChain.ddpm(), (8, 7)), "shape"),
        (lambda: sample(denoiser, GaussianChain.ddpm(), (3, 8, 7), cond=torch.zeros(2, 7)), "rows"),
        (lambda: sample(denoiser, GaussianChain.ddpm(), (3, 8, 7), generator=[torch.Generator()] * 2), "generators"),
    ),
)
def test_bad_input_is_one_clear_line(call, word):
    with pytest.raises(SpecpolicyError, match=word) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, options", (("ddpm", {}), ("ddpm", {"steps": 7}), ("ddim", {}), ("ddim", {"steps": 8, "eta": 0.7}))
)
def test_a_chunk_in_captured_steps_is_the_same(name, options):
    chain, shape, cond = GaussianChain.ddpm(20), torch.Size((2, 7)), 0.2 * torch.ones(1, 7)
    engine = EagerEngine(Workload(denoiser, (2, 7), (7,), 20))
    engine.capture = InPlace(denoiser)
    sampler = make_sampler(name, **options)
    draws = [BoundSampler(sampler, Setting(Model(one), chain, shape)) for one in (denoiser, engine)]
    for seed in (0, 1):
        plain, captured = (draw(1, cond, torch.Generator().manual_seed(seed)) for draw in draws)
        torch.testing.assert_close(captured.actions, plain.actions, rtol=0, atol=1e-5)
        assert captured.stats.rows_by_call == plain.stats.rows_by_call
    assert draws[1](1, cond, torch.Generator(), return_states=True).states is not None


@pytest.mark.parametrize("name", ("ddpm", "asd", "block"))
def test_what_is_captured_is_not_given_the_condition_of_the_chunk_before(name):
    def network(x, t, cond):
        return x / 2 if cond is None else x / 2 + cond[:, None, :2]

    engine = EagerEngine(Workload(network, (2, 2), (3,), 20))
    engine.capture = InPlace(network)
    for first, second in ((torch.ones(1, 3), None), (None, torch.ones(1, 3))):
        draw = BoundSampler(make_sampler(name), Setting(Model(engine), GaussianChain.ddpm(20), torch.Size((2, 2))))
        draw(1, first, torch.Generator())
        with pytest.raises(SpecpolicyError, match="made for conditions"):
            draw(1, second, torch.Generator())


def test_a_capture_that_failed_is_made_again():
    chain, times = GaussianChain.ddpm(20), []
    engine = EagerEngine(Workload(denoiser, (2, 7), None, 20))
    capture = InPlace(denoiser)

    def failing(function, values):
        times.append(1)
        if len(times) == 1:
            raise RuntimeError("out of memory")
        return capture(function, values)

    engine.capture = failing
    failing.network = denoiser
    draw, plain = (
        BoundSampler(make_sampler("ddpm"), Setting(Model(one), chain, torch.Size((2, 7)))) for one in (engine, denoiser)
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        draw(1, None, torch.Generator().manual_seed(0))
    for grad in (True, False):  # what was made where gradients are taken serves where they are not
        with torch.set_grad_enabled(grad):
            found, expected = (one(1, None, torch.Generator().manual_seed(0)).actions for one in (draw, plain))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_captured_step_that_is_not_finite_is_named():
    chain = GaussianChain.ddpm(20, prediction="sample", clip=None)

    def broken(x, t, cond):
        return torch.where(t.view(-1, 1, 1) == 11, torch.nan, x)

    engine = EagerEngine(Workload(broken, (2, 2), None, 20))
    engine.capture = InPlace(broken)
    with pytest.raises(SpecpolicyError, match=r"not finite at step 8 \(timestep 11\)"):
        BoundSampler(make_sampler("ddpm"), Setting(Model(engine), chain, torch.Size((2, 2))))(1)
