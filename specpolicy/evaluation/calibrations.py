"""A digest of the calibration and draft model behind a sampler's results.

Calibrations and draft models do not change the distribution. They do change which chunks a seed gives and how long
these take, so results made with one must not be continued with another. The policy's own weights have a digest in
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
    """Hash what a sampler uses of a policy's calibration and draft models.

    Args:
        policy: the policy, on the device it will run on.
        spec: the sampler as {"name": ..., options}.
        engine: the engine that will run the network.

    Returns:
        16 hexadecimal digits. None if the sampler uses nothing learnt: sequential samplers, and token decoders for
        which the calibration found that drafts do not pay.

    Raises:
        SpecpolicyError: the sampler is for another kind of policy.
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
