"""Digests of what is learnt beside a policy's weights and decides its results.

Calibrations and draft models do not change the distribution of a sampler. They do change which chunks a seed gives and
how long these take, so results made with one must not be continued with another. Two ways to continue committed actions
change the distribution with what they use: `linear` with the calibration's covariance, `predicted` with the predictor.
The policy's own weights have a digest in `specpolicy.evaluation.provenance.fingerprint`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from specpolicy.committed import LINEAR, PREDICTED
from specpolicy.fingerprints import add_weights
from specpolicy.model import backend_name
from specpolicy.policy import Policy
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
    return _hashed(list(sampler.learnt(policy.setting(), backend_name(policy.device, engine))))


def way_digest(policy: Policy, stitching: str) -> str | None:
    """Hash what a way to continue committed actions takes from beside the policy's weights; None for the others."""
    name = stitching.partition("-")[0]
    calibration, predictor = getattr(policy, "calibration", None), policy.predictor
    if name == LINEAR and calibration is not None:
        prior = calibration.prior
        return _hashed([{"basis": prior.basis, "variances": prior.variances}])
    if name == PREDICTED and predictor is not None:
        options = {name: value for name, value in asdict(predictor.options).items() if name != "errors"}
        return _hashed([options, {"weight": predictor.weight, "bias": predictor.bias}])
    return None


def _hashed(parts: list[Any]) -> str | None:
    if not parts:
        return None
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            add_weights(digest, part.state_dict())
        elif isinstance(part, dict) and all(isinstance(value, torch.Tensor) for value in part.values()):
            add_weights(digest, part)
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()[:16]
