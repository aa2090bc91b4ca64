"""`load_policy`: a policy from whatever lies at a path."""

from pathlib import Path

import torch

from specpolicy.checkpoints import WEIGHTS, read_config, read_weights
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import DiffusionPolicy


def load_policy(path: str | Path, device: torch.device | str = "cpu") -> DiffusionPolicy:
    """Load the policy in a checkpoint directory, ready for inference in float32 on `device`."""
    policy = DiffusionPolicy.from_config(read_config(path))
    weights = read_weights(path)
    try:
        policy.denoiser.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise SpecpolicyError(f"{Path(path) / WEIGHTS} does not fit its config.json: {reason}") from None
    return policy.to(device).eval()
