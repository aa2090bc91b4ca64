"""Which calibration is behind a sampler's figures: a digest of what it takes from beside the policy's weights.

A calibration and a draft model change no distribution, but which of its draws come out, and what they cost: results
under one must not be continued under another. The weights themselves are known by
`specpolicy.evaluation.provenance.fingerprint`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from specpolicy.fingerprints import add_weights
from specpolicy.model import backend_name
from specpolicy.policy_base import Policy
from specpolicy.sampler_names import make_sampler


def calibration_digest(policy: Policy, spec: Mapping[str, Any], engine: str) -> str | None:
    """A hash of what the sampler {"name": ..., options} takes from a policy's calibration and draft models.

    None: it takes nothing, as sequential samplers do, and a decoder for which calibration found that no draft pays.

    Args:
        policy: on the device it will run on.
        engine: that will run its network.

    Raises:
        SpecpolicyError: a sampler of another kind of policy.
    """
    sampler = policy.as_sampler(make_sampler(**spec))
    parts = list(sampler.learnt(policy.setting(), backend_name(policy.device, engine)))
    if not parts:
        return None
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            add_weights(digest, part.state_dict())
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()[:16]
