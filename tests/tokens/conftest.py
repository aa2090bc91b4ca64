"""A small policy of action tokens with fixed, sharpened weights: an untrained network says the same of every state."""

import pytest
import torch

from specpolicy.policy import TokenPolicy

SIZES = {"position": 2, "object": 3}


@pytest.fixture
def token_config():
    """The config.json of a small policy of action tokens, free to be changed."""
    return {
        "network": {"kind": "masked_transformer", "n_layer": 1, "n_head": 2, "n_emb": 16, "dropout": 0.0},
        "tokens": {"kind": "uniform", "bins": 8},
        "observation": dict(SIZES),
        "action_dim": 3,
        "horizon": 4,
        "n_obs_steps": 2,
        "n_action_steps": 2,
        "normaliser": {
            "position": {"scale": [2.0, 0.5], "offset": [0.0, 1.0]},
            "object": {"scale": [1.0, 1.0, 1.0], "offset": [0.0, 0.0, 0.0]},
            "action": {"scale": [0.5, 0.25, 1.0], "offset": [0.0, -1.0, 0.0]},
        },
        "task": {"name": "toy"},
        "command": "specpolicy train task=toy policy=tokens",
    }


@pytest.fixture
def token_policy(token_config):
    torch.manual_seed(0)
    policy = TokenPolicy.from_config(token_config)
    with torch.no_grad():
        policy.denoiser.token.weight.mul_(50)
        policy.denoiser.observation.weight.mul_(10)
        policy.denoiser.blocks[0].qkv.weight.mul_(6)
        policy.denoiser.blocks[0].out.weight.mul_(30)
        policy.denoiser.head.weight.mul_(4)
    return policy


@pytest.fixture
def seen():
    """`seen(count)`: so many observation histories."""

    def make(count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return {key: torch.randn(count, 2, size, generator=generator) for key, size in SIZES.items()}

    return make
