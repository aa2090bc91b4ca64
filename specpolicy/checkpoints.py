"""Our checkpoint format: a directory with `model.safetensors` (the EMA weights) and `config.json`. No pickle.

This room knows files only; `specpolicy.policy` knows what the fields of the configuration mean.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
REQUIRED = ("network", "observation", "action_dim", "horizon", "n_obs_steps", "n_action_steps", "normaliser")
TARGETS = ("chain", "tokens")  # of a diffusion policy, of a policy of action tokens: one of them is there


def write_checkpoint(
    directory: str | Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint, floating-point weights as `dtype`. config.json comes last and marks it complete."""
    directory = Path(directory)
    stored = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in stored.items()}
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file(stored, temporary)
    write_text(directory / CONFIG, json.dumps({"format": FORMAT, **config}, indent=1) + "\n")
    return directory


def read_config(directory: str | Path) -> dict[str, Any]:
    """The config.json of a checkpoint directory, checked for the fields a policy is built from."""
    directory = Path(directory)
    if not directory.exists():
        raise SpecpolicyError(f"no policy at {directory}: give a checkpoint directory with {WEIGHTS} and {CONFIG}")
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SpecpolicyError(f"{directory} has no {CONFIG}: it is not a specpolicy checkpoint") from None
    except ValueError as error:
        raise SpecpolicyError(f"{path} is not valid JSON ({error}): copy the checkpoint again") from None
    missing = [name for name in REQUIRED if name not in config] if isinstance(config, dict) else list(REQUIRED)
    if not missing and not any(name in config for name in TARGETS):
        missing = list(TARGETS)
    if missing:
        raise SpecpolicyError(f"{path} lacks '{missing[0]}': it is not a specpolicy checkpoint, or an incomplete one")
    if config.get("format", FORMAT) > FORMAT:
        raise SpecpolicyError(f"{path} has format {config['format']}, this specpolicy reads up to {FORMAT}: upgrade it")
    return config


def read_weights(directory: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint directory, floating-point ones as float32."""
    path = Path(directory) / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise SpecpolicyError(f"{directory} has no {WEIGHTS}: is the checkpoint complete?") from None
    except SafetensorError as error:
        raise SpecpolicyError(f"{path} cannot be read ({error}): copy the checkpoint again") from None
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
