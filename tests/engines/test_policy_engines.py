"""A policy on an engine: the same chunks; exact samplers have the distribution of the sequential one on that engine."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from specpolicy.errors import SpecpolicyError
from specpolicy.policy import DiffusionPolicy
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers import sample

SAMPLERS = ("asd", "block", "recycled")
ROWS = 200


@pytest.fixture(scope="module")
def policies(small_policy_config) -> dict[str, DiffusionPolicy]:
    """A small untrained policy on every engine that is installed and quick to make."""
    torch.manual_seed(0)
    policy = DiffusionPolicy.from_config({**small_policy_config, "chain": {"train_steps": 12, "steps": 12}})
    found = {"eager": policy.with_engine("eager")}
    try:
        found["openvino"] = policy.with_engine("openvino")
    except SpecpolicyError as error:
        assert "specpolicy[openvino]" in str(error)
    return found


def observation(rows=1):
    source = np.random.default_rng(0)
    return {"position": source.normal(size=(rows, 2, 2)), "object": source.normal(size=(rows, 2, 3))}


@pytest.mark.parametrize("sampler", ("ddpm", "block"))
def test_chunks_do_not_depend_on_the_engine(policies, sampler):
    drawn = [
        policy.predict(observation(3), sampler, generator=torch.Generator().manual_seed(1)).actions
        for policy in policies.values()
    ]
    assert all(torch.allclose(actions, drawn[0], atol=1e-3) for actions in drawn)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_threads_share_a_policy_on_any_engine(policies, sampler):
    """Each draws the chunks that it would draw alone."""

    def draw(policy, seed):
        seen, generator = observation(1 + seed % 3), torch.Generator().manual_seed(seed)
        return policy.predict({key: value + seed for key, value in seen.items()}, sampler, generator).actions

    for policy in policies.values():
        alone = [draw(policy, seed) for seed in range(16)]
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # so that threads meet wherever they can
        try:
            with ThreadPoolExecutor(2) as pool:
                together = list(pool.map(lambda seed, policy=policy: draw(policy, seed), range(16)))
        finally:
            sys.setswitchinterval(before)
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_the_policy_itself_stays_as_it_was(small_policy):
    weights = set(small_policy.state_dict())
    other = small_policy.with_engine("eager", max_rows=4)
    assert small_policy.engine is None and other.engine is not None and other.engine.workload.max_rows == 4
    assert set(small_policy.state_dict()) == set(other.state_dict()) == weights
    assert other.denoiser is small_policy.denoiser
    assert small_policy.with_engine("eager").engine.workload.max_rows == len(small_policy.chain)


def test_a_worker_process_can_be_sent_a_policy_with_its_engine(policies):
    for policy in policies.values():
        again = pickle.loads(pickle.dumps(policy))
        seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
        first, second = (p.predict(observation(), generator=g) for p, g in zip((policy, again), seeds, strict=True))
        assert torch.allclose(first.actions, second.actions, atol=1e-5)


def innovations(denoiser, policy, states, cond):
    """The noise (K-1, N, H*D) of each step, and its part along the network's output (K-1, N), if `denoiser` is what
    the states were drawn with."""
    chain, noises, along = policy.chain, [], []
    for step in range(len(chain) - 1):
        state, after = states[step], states[step + 1]
        with torch.inference_mode():
            output = denoiser(state, chain.timesteps[step].expand(len(state)), cond)
        mean = chain.mean(state, chain.x0(output, state, step), step)
        noise = ((after - mean) / chain.sigma[step].item()).flatten(1)
        noises.append(noise)
        along.append((noise * nn.functional.normalize(output.flatten(1))).sum(1))
    return torch.stack(noises), torch.stack(along)


def p_value(numbers, distribution, *parameters):
    return stats.kstest(numbers.flatten().numpy(), distribution, parameters).pvalue


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("engine", ("eager", "openvino", pytest.param("compile", marks=pytest.mark.slow)))
def test_exact_samplers_are_exact_on_every_engine(policies, engine, name):
    """Under the sequential distribution the noises recovered from a chain are independent standard normal numbers."""
    if engine == "compile":  # takes minutes
        policies[engine] = policies.get(engine) or policies["eager"].with_engine(engine)
    if engine not in policies:
        pytest.skip(f"{engine} is not installed")
    policy = policies[engine]
    cond = policy.encode(observation()).expand(ROWS, -1)
    shape, generator = (ROWS, *policy.sample_shape), torch.Generator().manual_seed(5)
    out = sample(policy.engine, policy.chain, shape, cond, make_sampler(name), generator, return_states=True)
    assert out.stats.calls.float().mean() < len(policy.chain) - 1, "something must have been speculated"
    noise, along = innovations(policy.engine, policy, out.states, cond)
    assert p_value(noise, "norm") > 1e-3 and p_value(along, "norm") > 1e-3
    assert p_value(noise.square().sum(-1), "chi2", noise.shape[-1]) > 1e-3
    following = (noise[1:] * noise[:-1]).mean() * noise[1:].numel() ** 0.5
    assert abs(following) < 4
    # The same test sees that another network drew them.
    _, along = innovations(lambda x, t, c: 2 * policy.engine(x, t, c), policy, out.states, cond)
    assert p_value(along, "norm") < 1e-3
