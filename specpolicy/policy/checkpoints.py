"""Our checkpoint format: a directory with `model.safetensors` (the EMA weights) and `config.json`. No pickle.

This module handles files only; the policies know the meaning of the configuration's fields.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.parsing import parse, read_json, shown
from specpolicy.parsing.tensors import read_tensors
from specpolicy.policy.config import PolicyConfig

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
REMEDY = "copy the checkpoint again"


def write_checkpoint(
    directory: str | Path,
    weights: Mapping[str, Tensor],
    config: PolicyConfig,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint, floating-point weights as `dtype`. config.json comes last and marks it complete."""
    directory = Path(directory)
    stored = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in stored.items()}
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file(stored, temporary)
    write_text(directory / CONFIG, json.dumps({"format": FORMAT, **config.to_dict()}, indent=1) + "\n")
    return directory


def read_config(directory: str | Path) -> PolicyConfig:
    """Read the config.json of a checkpoint directory.

    Raises:
        SpecpolicyError: no file, a damaged one, or one that is not a policy's.
    """
    directory = Path(directory)
    if not directory.exists():
        raise SpecpolicyError(f"no policy at {directory}: give a checkpoint directory with {WEIGHTS} and {CONFIG}")
    path = directory / CONFIG
    if not directory.is_dir() or not path.exists():
        raise SpecpolicyError(f"{directory} has no {CONFIG}: it is not a specpolicy checkpoint")
    try:
        content = read_json(path)
    except SpecpolicyError as error:
        raise SpecpolicyError(f"{error}: {REMEDY}") from None
    form = content.pop("format", FORMAT)
    if type(form) is not int or form < 1:
        raise SpecpolicyError(f"{path}: 'format' is {shown(form)}: it must be {FORMAT}")
    if form > FORMAT:
        raise SpecpolicyError(f"{path} has format {form}, this specpolicy reads up to {FORMAT}: upgrade it")
    return parse(PolicyConfig, content, path)


def read_weights(directory: str | Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights of a checkpoint directory, floating-point ones as float32.

    `expected`: tensors of the same names, shapes and kinds. Nothing is read unless the file holds exactly these.
    """
    path = Path(directory) / WEIGHTS
    if not path.exists():
        raise SpecpolicyError(f"{directory} has no {WEIGHTS}: is the checkpoint complete?")
    return read_tensors(path, expected, REMEDY)
