"""Solvers of a flow's ODE: their order, their times, their cost, and what they refuse."""

import math

import pytest
import torch

from specpolicy import GaussianChain, SpecpolicyError, flow_denoiser, make_sampler, sample
from specpolicy.model import Model
from specpolicy.samplers import BoundSampler, Setting

CHAIN = GaussianChain.from_flow(100)
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}  # also the number of stages, up to order four


def velocity(x, time, cond):
    """dx/dt = x (1/2 + t): the solution from x at 0 is x exp(t/2 + t^2/2)."""
    return x * (0.5 + time)[:, None, None]


def draw(sampler, chain=CHAIN, network=velocity, **options):
    options = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64, **options}
    return sample(flow_denoiser(network, chain), chain, (2, 3, 4), sampler=sampler, **options)


def error(name, steps):
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return float((draw(make_sampler(name, steps=steps)).actions - start * math.e).abs().max())


@pytest.mark.parametrize("name", ORDERS)
def test_twice_the_steps_divide_the_error_by_two_to_the_order(name):
    for steps in (10, 25):
        assert error(name, steps) / error(name, 2 * steps) == pytest.approx(2 ** ORDERS[name], rel=0.25)
    assert error(name, 100) < {"euler": 1e-1, "midpoint": 1e-3, "rk4": 1e-8}[name]


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("chain", (CHAIN, GaussianChain.from_flow([0.0, 0.1, 0.7, 1.0])), ids=("even", "uneven"))
def test_each_stage_asks_at_its_own_time_and_state(name, chain):
    """Also at times between those of the grid: eight steps of a hundred times, or of three."""
    asked = []

    def recorded(x, time, cond):
        asked.append((x, time))
        return velocity(x, time, cond)

    out = draw(make_sampler(name, steps=8), chain, recorded, return_states=True)
    places = {"euler": [0], "midpoint": [0, 0.5], "rk4": [0, 0.5, 0.5, 1]}[name]
    wanted = [(step + place) / 8 for step in range(8) for place in places]
    assert [float(time[0]) for _, time in asked] == pytest.approx(wanted, abs=1e-6)
    firsts = torch.stack([x for x, _ in asked[:: ORDERS[name]]])
    torch.testing.assert_close(firsts, out.states[:-1], rtol=1e-12, atol=1e-12)
    assert out.states.shape == (9, 2, 3, 4)
    assert out.stats.calls.tolist() == out.stats.rows.tolist() == [8 * ORDERS[name]] * 2
    assert out.stats.rows_by_call == (2,) * 8 * ORDERS[name]


def test_a_flow_from_one_to_zero_is_followed_to_the_same_end():
    chain = GaussianChain.from_flow(100, noise_at=1)
    backwards = draw("rk4-20", chain, lambda x, time, cond: -velocity(x, 1 - time, cond)).actions
    torch.testing.assert_close(backwards, draw("rk4-20").actions, rtol=1e-10, atol=1e-10)


def test_a_flow_that_keeps_some_noise_ends_with_it():
    """x_1 = a + sigma_min e: with the true velocity of one chunk, the end is exact at any number of steps."""
    chain = GaussianChain.from_flow(100, sigma_min=0.1)
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def straight(x, time, cond):
        noise = (x - 0.5 * time[:, None, None]) / (1 - 0.9 * time)[:, None, None]
        return 0.5 - 0.9 * noise

    torch.testing.assert_close(draw("euler-7", chain, straight).actions, 0.5 + 0.1 * start, rtol=1e-5, atol=1e-5)


def test_a_clip_bounds_the_result():
    clipped = draw("euler-10", GaussianChain.from_flow(10, clip=0.5)).actions
    torch.testing.assert_close(clipped, draw("euler-10", GaussianChain.from_flow(10)).actions.clamp(-0.5, 0.5))


@pytest.mark.parametrize("name", ORDERS)
def test_a_policy_that_learnt_to_denoise_is_refused_in_one_line(name):
    with pytest.raises(SpecpolicyError, match=rf"sampler '{name}' solves .* learnt to denoise \(epsilon\): use ddim"):
        sample(lambda x, t, c: x, GaussianChain.ddpm(10), (1, 2, 2), sampler=name)
    with pytest.raises(SpecpolicyError, match="'steps' of sampler"):
        make_sampler(name, steps=0)


def test_dpm_solver_refuses_a_flow():
    with pytest.raises(SpecpolicyError, match=r"dpm_solver.*use euler, midpoint or rk4"):
        draw("dpm_solver")


def test_steps_of_an_ode_have_no_densities():
    with pytest.raises(SpecpolicyError, match="sampler 'euler' solves an equation"):
        draw("euler", return_log_probs=True)


@pytest.mark.parametrize(
    ("sampler", "words"),
    (
        ("ddpm", "ancestral"),
        ("block", "ancestral"),
        ("picard", "near ancestral"),
        ("recycled-10", "ancestral, 10 steps"),
        ("euler-100", "flow ODE"),
        ("ddim-10", "another"),
    ),
)
def test_tables_tell_the_chain_from_the_ode(sampler, words):
    setting = Setting(Model(flow_denoiser(velocity, CHAIN)), CHAIN, torch.Size((3, 4)))
    assert BoundSampler(make_sampler(sampler), setting).describe()["distribution"] == words


def test_a_value_that_is_not_finite_is_named():
    def broken(x, time, cond):
        return x / (time - 0.5)[:, None, None]

    with pytest.raises(SpecpolicyError, match="not finite at step 5"):
        draw("euler-10", network=broken)
