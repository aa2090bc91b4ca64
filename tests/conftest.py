"""What many tests share: a small untrained policy, and one torch thread, as the two cores run two processes."""

import atexit
import contextlib
import copy
import logging
import os
import shutil
import signal
import tempfile

import h5py
import numpy as np
import pytest
import torch
from hypothesis import settings

from specpolicy.policy import DiffusionPolicy

torch.set_num_threads(1)
# What engine=auto finds out is kept for the whole run, the processes and programs of tests included, and not longer.
if "SPECPOLICY_CACHE" not in os.environ:
    os.environ["SPECPOLICY_CACHE"] = tempfile.mkdtemp(prefix="specpolicy-tests-")
    atexit.register(shutil.rmtree, os.environ["SPECPOLICY_CACHE"], ignore_errors=True)
# A shell that starts tests in the background has them ignore Ctrl-C; tests of Ctrl-C, and programs they start, need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with contextlib.suppress(ImportError):
    # absl, which simulators import, logs to the stream that it finds first and closes it when its handler is closed, as
    # Hydra does with all handlers. Here that stream is pytest's own.
    from absl import logging as absl_logging

    absl_logging.PythonHandler.close = logging.StreamHandler.close
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


@pytest.fixture(scope="session")
def small_policy_config() -> dict:
    """The config.json of a small policy, for fixtures of a wider scope: not to be changed."""
    return POLICY_CONFIG


@pytest.fixture(scope="module")
def drawing():
    """Skips what draws images where there is no OpenGL library."""
    from specpolicy_envs import rendering

    try:
        rendering._gl_context(8, 8).free()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def write_demonstrations():
    """Writes a few short demonstrations of Pendulum's shapes into a file."""

    def write(path):
        source = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            for demo in range(4):
                group = file.create_group(f"data/demo_{demo}")
                group.attrs["num_samples"] = 12
                group["actions"] = source.uniform(-2, 2, (12, 1))
                group["obs/state"] = source.normal(size=(12, 3))
            file["data"].attrs["total"] = 48
            file["mask/train"] = np.array([b"demo_0", b"demo_1", b"demo_2"])
            file["mask/valid"] = np.array([b"demo_3"])
        return path

    return write


@pytest.fixture
def policy_config() -> dict:
    """The config.json of a small policy, free to be changed."""
    return copy.deepcopy(POLICY_CONFIG)


@pytest.fixture
def small_policy(policy_config) -> DiffusionPolicy:
    """A small untrained policy with fixed weights."""
    torch.manual_seed(0)
    return DiffusionPolicy.from_config(policy_config)
