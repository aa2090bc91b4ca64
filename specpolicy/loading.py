"""`load_policy`: a policy from whatever lies at a path."""

import importlib
from pathlib import Path
from typing import Any

import torch

from specpolicy.checkpoints import read_config, read_weights
from specpolicy.draft_models import read_draft_models
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import check_made_for
from specpolicy.parsing.tensors import Unfilled, check_layout, layout_of
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy_config import PolicyConfig
from specpolicy.samplers.recycled.calibration import read_calibration
from specpolicy.token_policy import TokenPolicy
from specpolicy.tokens.calibration import read_token_calibration
from specpolicy.tokens.calibration.calibration import FILE as DRAFTS


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
    path: str | Path, device: torch.device | str = "cpu", trust: bool = False, bare: bool = False
) -> DiffusionPolicy | TokenPolicy:
    """Load a policy, ready for inference in float32 on `device`: a `DiffusionPolicy`, or a `TokenPolicy`.

    path: a checkpoint directory of ours, or a checkpoint of real-stanford/diffusion_policy (`.ckpt`), LeRobot (a
        directory) or robomimic (`.pth`).
    trust: open pickles that ask for more than these projects write; such a file can run any code.
    bare: leave out what lies beside our checkpoints, a calibration and draft models: for those who make them anew.

    Raises:
        SpecpolicyError: nothing there, a damaged file, a policy that cannot be run, a device that is not there; a
            calibration or draft models of another policy, or of this one before its weights were changed.
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
        with Unfilled():
            policy: DiffusionPolicy | TokenPolicy = kind.from_config(config)
        policy.load_weights(weights)
    except SpecpolicyError as error:
        raise error if str(path) in str(error) else SpecpolicyError(f"{path}: {error}") from None
    if foreign is None and not bare:
        _read_beside(policy, path)
    return policy.to(where).eval()


def _read_beside(policy: DiffusionPolicy | TokenPolicy, path: str | Path) -> None:
    """Give a policy the calibration and the draft models that lie beside it, if they are its own."""
    found: Any
    if isinstance(policy, TokenPolicy):
        found = policy.calibration = read_token_calibration(path)
        if found is not None:
            remedy = "delete it, and run `specpolicy calibrate` for this policy"
            check_made_for(found.fingerprint, policy.fingerprint, f"the calibration {Path(path) / DRAFTS}", remedy)
        return
    found = policy.calibration = read_calibration(path)
    if found is not None:
        remedy = "run `specpolicy calibrate` for this policy, or delete speculation.json and speculation.safetensors"
        check_made_for(found.fingerprint, policy.fingerprint, f"the calibration in {path}", remedy)
    found = policy.draft_models = read_draft_models(path)
    if found.models():
        remedy = "run `specpolicy train_drafter` for this policy, or delete drafters.json and drafters.safetensors"
        check_made_for(found.fingerprint, policy.fingerprint, f"the draft models in {path}", remedy)
