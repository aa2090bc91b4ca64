"""Engines run flow policies: at levels of the grid, which they look up, and at times between them."""

import pytest
import torch

from specpolicy.denoisers.rescaled import SplitRescaled
from specpolicy.engines.precision import Bfloat16
from specpolicy.policy import DiffusionPolicy

FLOW = {"times": 20, "steps": 10, "sigma_min": 0.01}
NETWORKS = {
    "unet": {"kind": "unet", "diffusion_step_embed_dim": 16, "down_dims": [16, 32], "kernel_size": 3},
    "transformer": {"kind": "transformer", "n_emb": 32, "n_layer": 1, "n_head": 2},
}


@pytest.fixture(scope="module", params=NETWORKS)
def policy(request, small_policy_config):
    torch.manual_seed(0)
    config = {**small_policy_config, "network": NETWORKS[request.param], "flow": FLOW, "chain": None}
    return DiffusionPolicy.from_config(config)


@pytest.fixture(scope="module", params=("eager", "openvino"))
def engine(request, policy):
    return policy.with_engine(request.param)


@torch.inference_mode()
def test_an_engine_computes_what_the_network_does_at_every_time(policy, engine):
    generator = torch.Generator().manual_seed(1)
    cond = torch.randn(1, *policy.encode(OBSERVATION).shape[1:], generator=generator)
    for levels in (torch.arange(20), torch.arange(20).float(), torch.tensor([-1.0, -0.3, 0.5, 7.25, 18.9])):
        x = torch.randn(len(levels), 8, 2, generator=generator)
        each = cond.expand(len(x), *cond.shape[1:])
        torch.testing.assert_close(
            engine.engine(x, levels, each), policy.denoiser(x, levels, each), rtol=1e-3, atol=1e-4
        )


OBSERVATION = {"position": torch.ones(2, 2), "object": torch.ones(2, 3)}


@pytest.mark.parametrize("sampler", ("ddpm", "block", "recycled", "euler-10", "euler-7", "rk4-3"))
def test_a_chunk_on_an_engine_is_that_of_the_network(policy, engine, sampler):
    drawn = [
        one.predict(OBSERVATION, sampler=sampler, generator=torch.Generator().manual_seed(0)).actions
        for one in (policy, engine)
    ]
    torch.testing.assert_close(*drawn, rtol=1e-2, atol=1e-3)


@torch.inference_mode()
def test_the_network_in_two_parts_is_the_same_function(policy):
    split = policy.denoiser.split_denoiser(8, 4)
    assert isinstance(split, SplitRescaled)
    cond = policy.encode(OBSERVATION)
    x, levels = torch.randn(4, 8, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 10, 19])
    features = split.time_features(levels) + split.condition_features(cond)
    whole = policy.denoiser(x, levels, cond.expand(4, *cond.shape[1:]))
    torch.testing.assert_close(split(x, features), whole, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_times_and_scales_keep_their_digits_in_bfloat16(policy, monkeypatch):
    """Against the formulas, with times between those of the grid; bfloat16 has eight bits of them."""
    split, seen = Bfloat16(policy.denoiser).split_denoiser(8, 4), []
    inner = split.split.split
    ask = inner.time_features
    monkeypatch.setattr(inner, "time_features", lambda time: seen.append(time) or ask(time))
    levels = torch.tensor([0.0, 3.0, 7.25, 18.5, 19.0])
    scale = split.time_features(levels)[:, 0]
    progress = 1 - (levels.double() + 1) / 20  # t, as noise_at is 0
    expected = (progress.square() + (1 - (1 - 0.01) * progress).square()).sqrt()
    torch.testing.assert_close(scale.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen[0].double(), 100 * progress, rtol=1e-6, atol=1e-4)
