"""The ancestral chain of a flow model: its tables by the formulas of flow matching, in both conventions of time."""

import pytest
import torch

from specpolicy import GaussianChain, SpecpolicyError, flow_denoiser, log_probs, make_sampler, sample
from specpolicy.denoisers.mip import MIPDenoiser
from specpolicy.diffusion import FlowOptions, FlowProcess
from specpolicy.diffusion.options import MIPOptions

CONVENTIONS = [(noise_at, sigma_min) for noise_at in (0, 1) for sigma_min in (0.0, 0.05, 1.0)]
UNEVEN = torch.tensor([0.0, 0.02, 0.3, 0.31, 0.8, 1.0], dtype=torch.float64)
conventions = pytest.mark.parametrize(("noise_at", "sigma_min"), CONVENTIONS)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def path(t, chunk, noise, noise_at, sigma_min):
    """x_t and the velocity that the model learns, by the definitions (LeRobot's, and pi0's where noise_at = 1)."""
    if noise_at == 0:
        return t * chunk + (1 - (1 - sigma_min) * t) * noise, chunk - (1 - sigma_min) * noise
    tau = 1 - t
    return (1 - tau) * chunk + (sigma_min + (1 - sigma_min) * tau) * noise, (1 - sigma_min) * noise - chunk


@conventions
def test_x0_of_the_true_velocity_is_the_chunk(noise_at, sigma_min):
    times = 1 - UNEVEN if noise_at else UNEVEN
    chain = GaussianChain.from_flow(times, noise_at, sigma_min)
    assert len(chain) == 5
    assert chain.timesteps.tolist() == [4, 3, 2, 1, 0]
    chunk, noise = random(3, 4), random(3, 4, seed=1)
    for step, t in enumerate(UNEVEN[:-1].tolist()):
        x, velocity = path(t, chunk, noise, noise_at, sigma_min)
        signal, remaining = t, 1 - (1 - sigma_min) * t
        norm = (signal**2 + remaining**2) ** 0.5
        torch.testing.assert_close(float(chain.alpha_bar[step]), signal**2 / norm**2, rtol=1e-14, atol=0)
        torch.testing.assert_close(chain.x0(velocity, x / norm, step), chunk, rtol=1e-12, atol=1e-12)


@conventions
def test_the_network_is_asked_at_its_own_state_and_time(noise_at, sigma_min):
    times = 1 - UNEVEN if noise_at else UNEVEN
    chain = GaussianChain.from_flow(times.tolist(), noise_at, sigma_min)
    seen = []

    def velocity(x, time, cond):
        seen.append((x, time))
        return x

    wrapped = flow_denoiser(velocity, chain, time_scale=10)
    chunk, noise = random(1, 3, 4), random(1, 3, 4, seed=1)
    for step, t in enumerate(UNEVEN[:-1].tolist()):
        x, _ = path(t, chunk, noise, noise_at, sigma_min)
        norm = (t**2 + (1 - (1 - sigma_min) * t) ** 2) ** 0.5
        for level in (chain.timesteps[step], chain.timesteps[step].double()):
            wrapped(x / norm, level[None], None)
            torch.testing.assert_close(seen[-1][0], x, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(float(seen[-1][1]), 10 * float(times[step]), rtol=1e-13, atol=1e-13)


@conventions
def test_a_step_is_the_posterior_of_the_next_state(noise_at, sigma_min):
    """By Bayes' rule from q(y_next | x0) and q(y | y_next), whose precisions add up."""
    chain = GaussianChain.from_flow(8, noise_at, sigma_min)
    state, x0 = random(3, 4), random(3, 4, seed=1)
    for step in range(7):
        left, kept = 1 - chain.alpha_bar_next[step], chain.alpha_bar[step] / chain.alpha_bar_next[step]
        variance = 1 / (1 / left + kept / (1 - kept))
        mean = variance * (chain.alpha_bar_next[step].sqrt() * x0 / left + kept.sqrt() * state / (1 - kept))
        torch.testing.assert_close(chain.sigma[step], variance.sqrt(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(chain.mean(state, x0, step), mean, rtol=1e-12, atol=1e-13)
    assert chain.state_weight[0] == 0 and chain.sigma[7] == 0
    torch.testing.assert_close(chain.mean(state, x0, 7), x0)


@pytest.mark.parametrize("steps", (4, 10, 16, 100, 7))
def test_a_shorter_chain_walks_every_nth_time(steps):
    shorter = GaussianChain.from_flow(400).strided(steps)
    if steps != 7:
        torch.testing.assert_close(shorter.sigma, GaussianChain.from_flow(steps).sigma, rtol=1e-12, atol=0)
    assert len(shorter) == steps
    assert shorter.alpha_bar[0] == 0 and shorter.alpha_bar_next[-1] == 1
    ddim = GaussianChain.from_flow(400).with_ddim(steps, eta=0.5)
    assert torch.equal(ddim.alpha_bar[1:], ddim.alpha_bar_next[:-1])


def test_every_number_of_steps_has_a_chain():
    """Also 29, 31, 58 of 400, where diffusers' formula for trailing timesteps rounds to one timestep too many."""
    whole = GaussianChain.from_flow(400)
    for steps in range(1, 401):
        levels = whole.strided(steps).timesteps
        assert len(levels) == steps and levels[0] == 399 and levels[-1] >= 0 and bool((levels.diff() < 0).all())
    with pytest.raises(SpecpolicyError, match="steps must lie between 1 and train_steps=400, got 401"):
        whole.strided(401)


def test_both_conventions_draw_the_same_chunks():
    def velocity(x, time, cond):
        return torch.tanh(x) - time[:, None, None] * x

    chains = GaussianChain.from_flow(10), GaussianChain.from_flow(10, noise_at=1)
    networks = velocity, lambda x, time, cond: -velocity(x, 1 - time, cond)
    drawn = [
        sample(
            flow_denoiser(network, chain),
            chain,
            (2, 3, 4),
            sampler="block",
            generator=torch.Generator().manual_seed(0),
            dtype=torch.float64,
        ).actions
        for network, chain in zip(networks, chains, strict=True)
    ]
    torch.testing.assert_close(*drawn, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "other",
    (
        GaussianChain.from_flow(100),
        GaussianChain.from_flow(10, noise_at=1),
        GaussianChain.from_flow(10, sigma_min=0.1),
        GaussianChain.from_flow([0.0, 0.3, *(0.3 + 0.7 * k / 9 for k in range(1, 9)), 1.0]),
    ),
    ids=repr,
)
def test_a_denoiser_that_was_wrapped_for_another_grid_is_refused(other):
    chain, states = GaussianChain.from_flow(10), torch.zeros(11, 2, 3, 4)
    assert log_probs(flow_denoiser(lambda x, t, c: x, GaussianChain.from_flow(10)), chain, states).shape == (10, 2)
    wrapped = flow_denoiser(lambda x, t, c: x, other)
    with pytest.raises(SpecpolicyError, match=r"wrapped for a flow of .* the chain is of one of 10 times"):
        sample(wrapped, chain, (2, 3, 4))
    with pytest.raises(SpecpolicyError, match=r"wrapped for a flow of .* the chain is of one of 10 times"):
        log_probs(wrapped, chain, states)
    with pytest.raises(SpecpolicyError, match="has to be wrapped"):
        log_probs(lambda x, t, c: x, chain, states)


@pytest.mark.parametrize(
    ("wrapped", "chain"),
    (
        (flow_denoiser(lambda x, t, c: x, GaussianChain.from_flow(10)), GaussianChain.ddpm(10)),
        (flow_denoiser(lambda x, t, c: x, GaussianChain.from_flow(10)), MIPOptions().make()),
        (MIPDenoiser(lambda x, t, c: x, 0.9), GaussianChain.ddpm(2)),
    ),
)
def test_a_denoiser_that_was_wrapped_for_another_kind_of_chain_is_refused(wrapped, chain):
    with pytest.raises(SpecpolicyError, match=r"wrapped for chains of kind '(flow|mip)', and .* is of another kind"):
        sample(wrapped, chain, (2, 3, 4), sampler="ddpm")
    own = MIPOptions().make()
    assert sample(MIPDenoiser(lambda x, t, c: x, 0.9), own, (2, 3, 4), sampler="ddpm").actions.shape == (2, 3, 4)


def test_ddim_without_noise_is_eulers_method_and_with_noise_is_not():
    chain = GaussianChain.from_flow(20)
    network = flow_denoiser(lambda x, time, cond: torch.sin(3 * x) + time[:, None, None], chain)

    def draw(sampler):
        generator = torch.Generator().manual_seed(0)
        return sample(network, chain, (2, 3, 4), sampler=sampler, generator=generator, dtype=torch.float64).actions

    euler = draw("euler-10")
    torch.testing.assert_close(draw("ddim-10"), euler, rtol=1e-10, atol=1e-10)
    assert float((draw(make_sampler("ddim-10", eta=0.1)) - euler).abs().max()) > 1e-3


def test_levels_are_numbers_of_the_grid_and_between_them_times_between():
    process = FlowProcess.of(UNEVEN)
    torch.testing.assert_close(process.level(UNEVEN), torch.arange(4, -2, -1).double())
    assert float(process.level(torch.tensor(0.55, dtype=torch.float64))) == pytest.approx(1 - 0.24 / 0.49)
    assert float(FlowProcess.of(400).level(torch.tensor(0.25))) == pytest.approx(299)


def test_a_flow_of_a_checkpoint_makes_its_chain():
    chain = FlowOptions(times=40, steps=10, noise_at=1, sigma_min=0.01, clip=2.0).make()
    assert (len(chain), chain.process.steps, chain.process.noise_at, chain.process.clip) == (10, 40, 1, 2.0)
    assert repr(chain) == "GaussianChain(flow, 10/40 steps, velocity, fixed_small, clip=2.0)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"times": [0.0, 0.5]}, "times must rise from 0 to 1 for noise_at=0"),
        ({"times": [1.0, 0.5, 0.0]}, "times must rise from 0 to 1"),
        ({"times": [0.0, 0.5, 1.0], "noise_at": 1}, "times must fall from 1 to 0 for noise_at=1"),
        ({"times": [0.0, 0.5, 0.5, 1.0]}, "times must rise"),
        ({"times": [-5e-7, -1e-7, 1.0]}, "times must rise"),
        ({"times": [0.0, 0.5, 1.0000002, 1.0000005]}, "times must rise"),
        ({"times": [1.0, 0.5, 1e-9, 0.0], "noise_at": 1}, "so close that no noise is left between them"),
        ({"times": [0.0, 1 - 1e-12, 1.0]}, "so close that no noise is left between them"),
        ({"times": [[0.0, 1.0]]}, r"times of shape \(1, 2\): give 2 to"),
        ({"times": 0}, "times=0: give a number of steps from 1"),
        ({"times": 10, "noise_at": 0.5}, r"noise_at=0.5: it is the time of pure noise, 0 \(LeRobot's DiT\) or 1"),
        ({"times": 10.0}, "times=10.0: give a whole number of steps, or the times"),
        ({"times": "ten"}, "times='ten': give a whole number of steps"),
        ({"times": None}, "times=None: give a whole number of steps"),
        ({"times": ["a", "b"]}, "times=a list of 2: give a whole number of steps"),
        ({"times": 10, "sigma_min": 1.5}, "sigma_min=1.5: it must be a number from 0 to 1"),
        ({"times": 10, "sigma_min": None}, "sigma_min=None: it must be a number"),
        ({"times": 10, "clip": 0.0}, "clip must be positive"),
        ({"times": 10, "clip": "1"}, "clip must be positive"),
    ),
)
def test_what_is_no_flow_is_refused(arguments, message):
    with pytest.raises(SpecpolicyError, match=message):
        GaussianChain.from_flow(**arguments)


def test_networks_and_chains_that_do_not_fit_are_refused():
    def velocity(x, time, cond):
        return x

    with pytest.raises(SpecpolicyError, match=r"give flow_denoiser\(velocity, chain\)"):
        sample(velocity, GaussianChain.from_flow(4), (1, 2, 2))
    for chain in (GaussianChain.ddpm(10), None):
        with pytest.raises(SpecpolicyError, match="is no chain of a flow model"):
            flow_denoiser(velocity, chain)
    with pytest.raises(SpecpolicyError, match="the velocity is a NoneType: give a function or module"):
        flow_denoiser(None, GaussianChain.from_flow(4))
    with pytest.raises(SpecpolicyError, match="time_scale='x': expected a number"):
        flow_denoiser(velocity, GaussianChain.from_flow(4), "x")
