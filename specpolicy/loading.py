"""`load_policy`: a policy from whatever lies at a path."""

import importlib
from pathlib import Path

import torch

from specpolicy.checkpoints import read_config, read_weights
from specpolicy.draft_models import read_draft_models
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing.tensors import check_layout, layout_of
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy_config import PolicyConfig
from specpolicy.samplers.speculative.calibration import read_calibration
from specpolicy.token_policy import TokenPolicy
from specpolicy.tokens.calibration import read_token_calibration


def usable_device(name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        SpecpolicyError: there is none, or this torch cannot use it.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a build of torch without CUDA
        raise SpecpolicyError(f"device={name} cannot be used here: {str(error).splitlines()[0]}") from error


def load_policy(
    path: str | Path, device: torch.device | str = "cpu", trust: bool = False
) -> DiffusionPolicy | TokenPolicy:
    """Load a policy, ready for inference in float32 on `device`: a `DiffusionPolicy`, or a `TokenPolicy`.

    path: a checkpoint directory of ours, or a checkpoint of real-stanford/diffusion_policy (`.ckpt`), LeRobot (a
        directory) or robomimic (`.pth`).
    trust: open pickles that ask for more than these projects write; such a file can run any code.

    Raises:
        SpecpolicyError: nothing there, a damaged file, a policy that cannot be run, a device that is not there.
    """
    where = usable_device(device)
    # By name, not by an import statement: the integrations know all rooms, so no room may know them. This is the one
    # door at which a path of unknown origin comes in.
    foreign = importlib.import_module("specpolicy.integrations").read(path, trust)
    try:
        config = read_config(path) if foreign is None else PolicyConfig.parse(foreign.config)
        kind = DiffusionPolicy if config.tokens is None else TokenPolicy
        expected = kind.expected_weights(config)
        weights = read_weights(path, expected) if foreign is None else foreign.weights
        check_layout(layout_of(weights), expected)  # before memory is taken
        policy: DiffusionPolicy | TokenPolicy = kind.from_config(config)
        policy.load_weights(weights)
    except SpecpolicyError as error:
        raise error if str(path) in str(error) else SpecpolicyError(f"{path}: {error}") from None
    if isinstance(policy, TokenPolicy):
        policy.calibration = read_token_calibration(path)
    elif foreign is None:
        policy.calibration = read_calibration(path)
        policy.draft_models = read_draft_models(path).to(where)
    return policy.to(where).eval()
