"""What many tests share: a small untrained policy, and one torch thread, as the two cores run two processes."""

import copy
import signal

import pytest
import torch
from hypothesis import settings

from specpolicy.policy import DiffusionPolicy

torch.set_num_threads(1)
# A shell that starts tests in the background has them ignore Ctrl-C; tests of Ctrl-C, and programs they start, need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No time limit on an example: a busy machine is no failure.
settings.register_profile("specpolicy", deadline=None)
settings.load_profile("specpolicy")

POLICY_CONFIG = {
    "network": {"kind": "unet", "diffusion_step_embed_dim": 16, "down_dims": [16, 32], "kernel_size": 3},
    "chain": {"train_steps": 20, "steps": 20},
    "observation": {"position": 2, "object": 3},
    "action_dim": 2,
    "horizon": 8,
    "n_obs_steps": 2,
    "n_action_steps": 4,
    "normaliser": {
        "position": {"scale": [2.0, 0.5], "offset": [0.0, 1.0]},
        "object": {"scale": [1.0, 1.0, 1.0], "offset": [0.0, 0.0, 0.0]},
        "action": {"scale": [0.5, 0.25], "offset": [0.0, -1.0]},
    },
    "task": {"name": "toy"},
    "command": "specpolicy train task=toy",
}


@pytest.fixture
def policy_config() -> dict:
    """The config.json of a small policy, free to be changed."""
    return copy.deepcopy(POLICY_CONFIG)


@pytest.fixture
def small_policy(policy_config) -> DiffusionPolicy:
    """A small untrained policy with fixed weights."""
    torch.manual_seed(0)
    return DiffusionPolicy.from_config(policy_config)
