"""A chain's steps: one, a range or some of them are the same steps, and many of them can be rolled out at once."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy import GaussianChain, SpecpolicyError, sample
from specpolicy.diffusion.steps import StepTables

SHAPE = (3, 2)
CPU = torch.device("cpu")
CHAINS = {
    "ddpm": GaussianChain.ddpm(20),
    "strided": GaussianChain.ddpm(100, 10, spacing="trailing"),
    "sample": GaussianChain.ddpm(20, prediction="sample"),
    "v prediction": GaussianChain.ddpm(20, prediction="v_prediction", variance="fixed_large"),
    "unclipped": GaussianChain.ddpm(20, clip=None),
    "ddim": GaussianChain.ddpm(100).with_ddim(10, eta=0.7),
    "ddim, epsilon of the clipped x0": GaussianChain.ddpm(100).with_ddim(10, eta=0.7, reuse_epsilon=False),
    "noisy last step": GaussianChain.ddpm(100, 8, variance="fixed_large", offset=5),
    "one step": GaussianChain.ddpm(20, 1),
}
chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def random(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def literally(chain, output, state, step):
    """(x0 as clipped as can be, mean) of a step by the formulas at the top of chain.py."""
    from_state, from_output = chain.process.x0_coefficients(chain.timesteps[step])
    raw = from_state * state + from_output * output
    bound = chain.process.clip or float("inf")
    x0 = raw.clamp(-bound, bound)
    mean = chain.state_weight[step] * state + chain.x0_weight[step] * x0 + chain.raw_x0_weight[step] * raw
    return x0, mean


@chains
def test_a_step_follows_the_formulas_and_is_the_same_in_any_company(chain):
    """One step (an int), a range (a slice) and numbers of steps. Outputs are large, so that the clip is at work."""
    count = len(chain)
    states, outputs = random(2, count, *SHAPE), random(2, count, *SHAPE, seed=1, scale=3)
    noise, other = random(2, count, *SHAPE, seed=2), random(2, count, *SHAPE, seed=3)
    numbers = torch.arange(count).expand(2, count)
    found = []
    for steps in (slice(0, count), numbers):
        x0 = chain.x0(outputs, states, steps)
        parts = (chain.mean(states, x0, steps), chain.drift(x0, steps), chain.shock(noise, steps))
        found.append((x0, *parts, chain.gap(x0, other, steps)))
    for one, same in zip(*found, strict=True):
        assert torch.equal(one, same)
    for step in range(count):
        x0, mean = literally(chain, outputs[:, step], states[:, step], step)
        torch.testing.assert_close(chain.process.clipped(found[0][0][:, step]), x0)
        torch.testing.assert_close(found[0][1][:, step], mean)
        alone = chain.x0(outputs[:, step], states[:, step], step)
        parts = (chain.mean(states[:, step], alone, step), chain.drift(alone, step), chain.shock(noise[:, step], step))
        for one, same in zip(found[0], (alone, *parts, chain.gap(alone, other[:, step], step)), strict=True):
            torch.testing.assert_close(one[:, step], same)
        torch.testing.assert_close(found[0][3][:, step], chain.sigma[step] * noise[:, step])


@chains
def test_gaps_are_differences_of_means_in_units_of_the_noise(chain):
    states, x0, other = (random(len(chain), *SHAPE, seed=seed) for seed in range(3))
    every = slice(0, len(chain))
    means = chain.mean(states, x0, every) - chain.mean(states, other, every)
    torch.testing.assert_close(chain.gap(x0, other, every), means / chain.gap_scale[:, None, None])


def test_steps_are_in_the_order_of_diffusers_the_noisiest_first():
    assert GaussianChain.ddpm(100, 5).timesteps.tolist() == [80, 60, 40, 20, 0]
    for chain in CHAINS.values():
        assert (chain.alpha_bar.diff() > 0).all() and (chain.alpha_bar_next >= chain.alpha_bar).all()
        assert chain.timesteps_on(CPU).tolist() == chain.timesteps.tolist()


def test_timesteps_that_are_no_whole_numbers_reach_the_network_as_they_are():
    process = GaussianChain.ddpm(20).process
    times, signal = torch.tensor([0.9, 0.5, 0.25]), torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    chain = GaussianChain(process, times, alpha_bar=signal)
    assert torch.equal(chain.timesteps_on(CPU), times) and chain.alpha_bar_next.tolist() == [0.5, 0.8, 1.0]
    same = GaussianChain.ddpm(20)
    again = GaussianChain(process, same.timesteps, alpha_bar=same.alpha_bar)
    assert torch.equal(again.sigma, same.sigma) and torch.equal(again.x0_weight, same.x0_weight)
    with pytest.raises(SpecpolicyError, match="alpha_bar"):
        GaussianChain(process, times)


@chains
def test_a_mean_is_linear_in_the_state_and_its_drift(chain):
    steps = torch.arange(len(chain))
    states, x0 = random(len(chain), *SHAPE), random(len(chain), *SHAPE, seed=1)
    drift = chain.drift(x0, steps)
    torch.testing.assert_close(chain.mean(states, x0, steps) - drift, chain.state_weight[:, None, None] * states)
    torch.testing.assert_close(
        chain.mean(states, x0, steps), chain.mean(0 * states, x0, steps) + chain.mean(states, 0 * x0, steps)
    )


@chains
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_rolling_out_is_walking_step_by_step(chain, dtype):
    count = len(chain)
    root, additions = random(4, *SHAPE, dtype=dtype), random(4, count, *SHAPE, seed=1, dtype=dtype)
    first = torch.tensor([0, 0, count // 2, count - 1])
    width = int(count - first.max())
    steps = first[:, None] + torch.arange(width)
    rolled, state = chain.rollout(root, additions[:, :width], steps), root
    for place in range(width):
        state = (chain.state_weight[steps[:, place]][:, None, None] * state).to(dtype) + additions[:, place]
        torch.testing.assert_close(rolled[:, place], state, rtol=1e-4, atol=1e-5)
    assert rolled.dtype == dtype


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(CHAINS)),
    st.integers(0, 19),
    st.integers(0, 19),
    st.integers(0, 1000),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_state_depends_on_nothing_that_is_added_behind_it(name, start, place, seed, dtype):
    """Bit for bit: what is added from a place on is replaced by other, larger numbers, the root by none."""
    chain = CHAINS[name]
    start = start % len(chain)
    width = len(chain) - start
    place = place % width
    steps = (start + torch.arange(width)).expand(3, -1)
    root, additions = random(3, *SHAPE, seed=seed, dtype=dtype), random(3, width, *SHAPE, seed=seed + 1, dtype=dtype)
    other = additions.clone()
    other[:, place:] = random(3, width - place, *SHAPE, seed=seed + 2, scale=1e3, dtype=dtype)
    first, second = chain.rollout(root, additions, steps), chain.rollout(root, other, steps)
    assert torch.equal(first[:, :place], second[:, :place])
    assert not torch.equal(first[:, place:], second[:, place:])


@pytest.mark.parametrize("prediction", ("sample", "epsilon", "v_prediction"))
def test_an_output_of_half_precision_makes_a_mean_of_whole_precision(prediction):
    """Coefficients rounded to bfloat16 would move the mean by many times a late step's noise."""
    chain = GaussianChain.ddpm(20, prediction=prediction, clip=None)
    state, output = random(3, *SHAPE).float(), random(3, *SHAPE).bfloat16()
    for step in (0, 18, torch.tensor([3, 18, 10])):
        expected = chain.mean(state, chain.x0(output.float(), state, step), step)
        found = chain.mean(state, chain.x0(output, state, step), step)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", ("asd", "reflection", "block", "recycled"))
def test_states_of_float64_take_outputs_of_float32(sampler):
    chain = GaussianChain.ddpm(20, prediction="sample")
    for batch in (1, 3):
        out = sample(lambda x, t, c: x.float() / 2, chain, (batch, *SHAPE), sampler=sampler, dtype=torch.float64)
        assert out.actions.dtype == torch.float64 and len(out.actions) == batch


def test_autocast_does_not_touch_the_states():
    """A draft that is not its mean plus its noise, to the last digit that counts, has another distribution."""
    chain = CHAINS["ddpm"]
    root, additions, steps = random(2, *SHAPE), random(2, len(chain), *SHAPE), slice(0, len(chain))
    expected = chain.rollout(root, additions, steps)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16  # as other products are
        assert torch.equal(chain.rollout(root, additions, steps), expected)


def test_nothing_to_roll_out():
    chain = CHAINS["ddpm"]
    nothing = torch.zeros(2, 0, *SHAPE)
    assert chain.rollout(torch.ones(2, *SHAPE), nothing, torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, *SHAPE)
    empty = chain.rollout(torch.zeros(0, *SHAPE), torch.zeros(0, 4, *SHAPE), torch.arange(4).expand(0, 4))
    assert empty.shape == (0, 4, *SHAPE)


def test_gaps_are_measured_in_the_noise_and_where_there_is_none_in_nothing():
    chain, noisy = CHAINS["ddpm"], CHAINS["noisy last step"]
    assert chain.sigma[-1] == 0 and chain.gap_scale[-1] == 1
    assert torch.equal(chain.gap_scale[:-1], chain.sigma[:-1])
    assert noisy.sigma[-1] > 0 and torch.equal(noisy.gap_scale, noisy.sigma)


def test_tables_are_made_once_for_each_device_and_number_format():
    """Also in inference mode, in which tables would be of no use to training."""
    chain, steps = GaussianChain.ddpm(20), torch.arange(20)
    with (
        torch.inference_mode(),
        patch.object(StepTables, "placed", autospec=True, side_effect=StepTables.placed) as made,
    ):
        for _ in range(3):
            for dtype in (torch.float32, torch.float64):
                noise = random(20, *SHAPE, dtype=dtype)
                chain.mean(noise, noise, 3)  # one step needs none
                assert chain.shock(noise, steps).dtype == chain.drift(noise, slice(0, 20)).dtype == dtype
                assert chain.rollout(noise[:1], noise[None], slice(0, 20)).dtype == dtype
            assert chain.timesteps_on(CPU) is chain.timesteps_on(CPU)
    assert [call.args[1:] for call in made.call_args_list] == [(CPU, torch.float32), (CPU, torch.float64)]
    state = random(20, *SHAPE, dtype=torch.float32).requires_grad_()
    chain.mean(state, state, steps).sum().backward()
    assert state.grad is not None and not chain.timesteps_on(CPU).is_inference()
