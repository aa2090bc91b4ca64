"""Which calibration is behind a sampler's figures: a digest of what it takes from beside the policy's weights.

A calibration and a draft model change no law, but which of its draws come out, and what they cost: results under one
must not be continued under another. The weights themselves are known by `specpolicy.evaluation.provenance.fingerprint`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from specpolicy.fingerprints import add_weights
from specpolicy.model import backend_name
from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import Calibration, make_sampler
from specpolicy.token_policy import TokenPolicy
from specpolicy.tokens.samplers import TokenSampler


def calibration_digest(policy: DiffusionPolicy | TokenPolicy, spec: Mapping[str, Any], engine: str) -> str | None:
    """A hash of what the sampler {"name": ..., options} takes from a policy's calibration and draft models.

    None: it takes nothing, as sequential samplers do, and a decoder for which calibration found that no draft pays.

    Args:
        policy: on the device it will run on.
        engine: that will run its network.
    """
    options = dict(spec)
    sampler: Any = policy.equip(make_sampler(options.pop("name"), **options))
    if isinstance(sampler, TokenSampler):
        # A policy that is no token policy will refuse to run it.
        parts = list(_of_decoder(sampler)) if isinstance(policy, TokenPolicy) else []
    else:
        parts = list(_of_denoiser(policy, sampler, engine))
    if not parts:
        return None
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            add_weights(digest, part.state_dict())
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()[:16]


def _of_denoiser(policy: Any, sampler: Any, engine: str) -> Iterator[Any]:
    """The parts of a sampler of chunks that were made offline: modules, and settings in plain values."""
    for name in ("draft_denoiser", "head"):
        if getattr(sampler, name, None) is not None:
            yield from (name, getattr(sampler, name))
    calibration: Calibration | None = getattr(sampler, "calibration", None)
    if calibration is None:
        return
    yield from ("sweeps", calibration.sweeps, calibration.prior)
    if calibration.student is not None and sampler.student is not False:
        yield from ("student", calibration.student)
    if sampler.window == "calibrated":
        plan = calibration.plan(sampler.target(policy.chain), backend_name(policy.device, engine))
        if plan is not None:
            yield from ("plan", plan.windows, plan.sweeps, plan.student)


def _of_decoder(sampler: TokenSampler) -> Iterator[Any]:
    """What drafts for a decoder, as far as calibration chose it."""
    found = None if sampler.calibration is None else sampler.calibration.decoders.get(sampler.law)
    drafter, drafts = sampler.resolved()
    graphs = found.graphs if found is not None and drafter == "graph" else {}
    if found is None or not drafts or (sampler.drafts != "calibrated" and not graphs):
        return
    yield from (drafter, drafts)
    for masked, graph in sorted(graphs.items()):
        kept = graph.first(drafts)
        yield from (masked, kept.nodes, kept.weights)
