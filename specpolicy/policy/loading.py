"""`load_policy`: load a policy of any supported format from a path."""

import importlib
from pathlib import Path

import torch

from specpolicy.artifacts import local_path
from specpolicy.errors import SpecpolicyError
from specpolicy.model import usable_device
from specpolicy.parsing.tensors import Unfilled, check_layout, layout_of
from specpolicy.policy.checkpoints import read_config, read_weights
from specpolicy.policy.config import PolicyConfig
from specpolicy.policy.diffusion_policy import DiffusionPolicy
from specpolicy.policy.prediction import read_predictor
from specpolicy.policy.token_policy import TokenPolicy


def load_policy(
    path: str | Path, device: torch.device | str = "cpu", trust: bool = False, bare: bool = False
) -> DiffusionPolicy | TokenPolicy:
    """Load a policy, ready for inference in float32 on `device`: a `DiffusionPolicy` or a `TokenPolicy`.

    Args:
        path: a checkpoint directory of ours, or a checkpoint of real-stanford/diffusion_policy (`.ckpt`), LeRobot (a
            directory) or robomimic (`.pth`). `wandb:entity/project/name:version` is fetched first, see
            `specpolicy.artifacts`.
        device: device such as "cpu" or "cuda".
        trust: open pickles that ask for more than these projects write. Such a file can run any code.
        bare: leave out calibration and draft models beside a checkpoint of ours, to make them anew.

    Raises:
        SpecpolicyError: there is nothing at the path, the file is damaged, the policy cannot be run or the device does
            not exist; or calibration or draft models belong to another policy, or to this one before its weights
            changed.
    """
    if not isinstance(path, str | Path):
        raise SpecpolicyError(f"path={path!r}: give the path of a checkpoint")
    where, path = usable_device(device), local_path(path)
    # By name, not by an import statement: integrations import all other packages, so no package imports them. Only here
    # does a path of unknown origin come in.
    foreign = importlib.import_module("specpolicy.integrations").read(path, trust)
    try:
        config = read_config(path) if foreign is None else PolicyConfig.parse(foreign.config)
        kind = DiffusionPolicy if config.tokens is None else TokenPolicy
        expected = kind.expected_weights(config)
        weights = read_weights(path, expected) if foreign is None else foreign.weights
        check_layout(layout_of(weights), expected)  # before memory is allocated
        with Unfilled():
            policy: DiffusionPolicy | TokenPolicy = kind.from_config(config)
        policy.load_weights(weights)
    except SpecpolicyError as error:
        raise error if str(path) in str(error) else SpecpolicyError(f"{path}: {error}") from None
    if foreign is None and not bare:
        policy.read_beside(path)
        policy.predictor = read_predictor(path, config.observation, config.n_obs_steps, policy.action_dim)
    return policy.to(where).eval()
