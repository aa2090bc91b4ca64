"""Our checkpoint format: a directory with `model.safetensors` (the EMA weights) and `config.json`. No pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.policy import DiffusionPolicy

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
REQUIRED = (
    "network",
    "chain",
    "observation",
    "action_dim",
    "horizon",
    "n_obs_steps",
    "n_action_steps",
    "normaliser",
)


def save_policy(policy: DiffusionPolicy, directory: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write `policy` to `directory`, the weights as `dtype`. config.json is written last and marks it complete."""
    directory = Path(directory)
    weights = {name: value.detach().cpu().contiguous() for name, value in policy.denoiser.state_dict().items()}
    weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file(weights, temporary)
    config = {"format": FORMAT, **policy.config, "normaliser": policy.normaliser.to_config()}
    write_text(directory / CONFIG, json.dumps(config, indent=1) + "\n")
    return directory


def load_policy(path: str | Path, device: torch.device | str = "cpu") -> DiffusionPolicy:
    """Load a policy from a checkpoint directory, ready for inference in float32 on `device`."""
    directory = Path(path)
    config = read_config(directory)
    policy = DiffusionPolicy.from_config(config)
    try:
        weights = load_file(directory / WEIGHTS)
        policy.denoiser.load_state_dict({name: value.float() for name, value in weights.items()})
    except FileNotFoundError:
        raise SpecpolicyError(f"{directory} has no {WEIGHTS}: is the checkpoint complete?") from None
    except SafetensorError as error:
        raise SpecpolicyError(f"{directory / WEIGHTS} cannot be read ({error}): copy the checkpoint again") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise SpecpolicyError(f"{directory / WEIGHTS} does not fit its config.json: {reason}") from None
    return policy.to(device).eval()


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a checkpoint directory, checked for the fields a policy is built from."""
    if not directory.exists():
        raise SpecpolicyError(f"no policy at {directory}: give a checkpoint directory with {WEIGHTS} and {CONFIG}")
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SpecpolicyError(f"{directory} has no {CONFIG}: it is not a specpolicy checkpoint") from None
    except ValueError as error:
        raise SpecpolicyError(f"{path} is not valid JSON ({error})") from None
    missing = [name for name in REQUIRED if name not in config]
    if missing:
        raise SpecpolicyError(f"{path} lacks '{missing[0]}': it is not a specpolicy checkpoint, or an incomplete one")
    if config.get("format", FORMAT) > FORMAT:
        raise SpecpolicyError(f"{path} has format {config['format']}, this specpolicy reads up to {FORMAT}: upgrade it")
    return config
