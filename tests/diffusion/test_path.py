"""A chain's steps as tensors: the same as the chain's own single steps, and many of them rolled out at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy import GaussianChain

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


@chains
def test_a_step_is_that_of_the_chain_in_the_order_it_is_walked(chain):
    """Outputs are large, so that the clip is at work."""
    path, count = chain.path(CPU, torch.float64), len(chain)
    assert len(path) == count and path.timesteps.tolist() == chain.timesteps.flip(0).tolist()
    states, outputs = random(2, count, *SHAPE), random(2, count, *SHAPE, seed=1, scale=3)
    steps = torch.arange(count).expand(2, count)
    x0 = path.x0(outputs, states, steps)
    means = path.mean(states, x0, steps)
    for row in range(2):
        for step in range(count):
            level, state = count - 1 - step, states[row, step][None]
            expected = chain.x0(outputs[row, step][None], state, level)
            torch.testing.assert_close(means[row, step][None], chain.mean(expected, state, level))
            torch.testing.assert_close(chain.clip(x0[row, step])[None], chain.clip(expected))
    assert path.sigma.tolist() == chain.sigma.flip(0).tolist()


@chains
def test_a_mean_is_linear_in_the_state_and_its_drift(chain):
    path, steps = chain.path(CPU, torch.float64), torch.arange(len(chain))
    states, x0 = random(len(chain), *SHAPE), random(len(chain), *SHAPE, seed=1)
    drift = path.drift(x0, steps)
    torch.testing.assert_close(path.mean(states, x0, steps) - drift, path.state_weight[:, None, None] * states)
    torch.testing.assert_close(
        path.mean(states, x0, steps), path.mean(0 * states, x0, steps) + path.mean(states, 0 * x0, steps)
    )


@chains
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_rolling_out_is_walking_step_by_step(chain, dtype):
    path, count = chain.path(CPU, dtype), len(chain)
    root, additions = random(4, *SHAPE, dtype=dtype), random(4, count, *SHAPE, seed=1, dtype=dtype)
    first = torch.tensor([0, 0, count // 2, count - 1])
    width = int(count - first.max())
    steps = first[:, None] + torch.arange(width)
    rolled, state = path.roll(root, additions[:, :width], steps), root
    for place in range(width):
        state = path.state_weight[steps[:, place]][:, None, None] * state + additions[:, place]
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
    path = chain.path(CPU, dtype)
    steps = (start + torch.arange(width)).expand(3, -1)
    root, additions = random(3, *SHAPE, seed=seed, dtype=dtype), random(3, width, *SHAPE, seed=seed + 1, dtype=dtype)
    other = additions.clone()
    other[:, place:] = random(3, width - place, *SHAPE, seed=seed + 2, scale=1e3, dtype=dtype)
    first, second = path.roll(root, additions, steps), path.roll(root, other, steps)
    assert torch.equal(first[:, :place], second[:, :place])
    assert not torch.equal(first[:, place:], second[:, place:])


def test_autocast_does_not_touch_the_states():
    """A draft that is not its mean plus its noise, to the last digit that counts, has another law."""
    path = CHAINS["ddpm"].path(CPU)
    root, additions, steps = random(2, *SHAPE), random(2, len(CHAINS["ddpm"]), *SHAPE), slice(0, len(CHAINS["ddpm"]))
    expected = path.roll(root, additions, steps)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16  # as other products are
        assert torch.equal(path.roll(root, additions, steps), expected)


def test_nothing_to_roll_out():
    path = CHAINS["ddpm"].path(CPU)
    nothing = torch.zeros(2, 0, *SHAPE)
    assert path.roll(torch.ones(2, *SHAPE), nothing, torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, *SHAPE)
    empty = path.roll(torch.zeros(0, *SHAPE), torch.zeros(0, 4, *SHAPE), torch.arange(4).expand(0, 4))
    assert empty.shape == (0, 4, *SHAPE)


def test_gaps_are_measured_in_the_noise_and_where_there_is_none_in_nothing():
    path = CHAINS["ddpm"].path(CPU)
    assert path.sigma[-1] == 0 and path.gap_scale[-1] == 1
    assert torch.equal(path.gap_scale[:-1], path.sigma[:-1])
    noisy = CHAINS["noisy last step"].path(CPU)
    assert noisy.sigma[-1] > 0 and torch.equal(noisy.gap_scale, noisy.sigma)


def test_tables_are_made_once_for_each_device_and_number_format():
    chain = CHAINS["ddpm"]
    assert chain.path(CPU) is chain.path(CPU) is not chain.path(CPU, torch.float64)
    assert chain.path(CPU).sigma.dtype == torch.float32 and chain.path(CPU).transfer.dtype == torch.float64
