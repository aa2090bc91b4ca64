"""Fingerprints of weights, which tie a calibration, a draft model or a figure to its policy.

They are computed from the values in float32 on any device. So a policy that was stored in half precision, copied or
moved to another device keeps its fingerprint.
"""

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

LENGTH = 16  # hexadecimal digits
JOINT = "-"  # between the denoiser's and the encoder's

# Computed once for a network, because it costs as much as some calls, and again after its weights changed in place.
_known: "weakref.WeakKeyDictionary[nn.Module, tuple[Any, str]]" = weakref.WeakKeyDictionary()


def weights_fingerprint(module: nn.Module) -> str:
    """Return the fingerprint of a network's weights."""
    state = module.state_dict()
    versions = tuple((name, _version(value)) for name, value in state.items())
    if module not in _known or _known[module][0] != versions:
        digest = hashlib.sha256()
        add_weights(digest, state)
        _known[module] = versions, digest.hexdigest()[:LENGTH]
    return _known[module][1]


def policy_fingerprint(denoiser: nn.Module, encoder: nn.Module) -> str:
    """Return the fingerprint of a policy: its denoiser's, followed by its encoder's, if that has weights."""
    own = weights_fingerprint(denoiser)
    return f"{own}{JOINT}{weights_fingerprint(encoder)}" if encoder.state_dict() else own


def file_fingerprint(path: str | Path) -> str:
    """Return the fingerprint of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:LENGTH]


def agree(one: str, other: str) -> bool:
    """Whether two fingerprints may be of one policy: one of them may be of the denoiser alone."""
    return all(a == b for a, b in zip(one.split(JOINT), other.split(JOINT), strict=False))


def check_made_for(made_for: str | None, policy: str, what: str, remedy: str) -> None:
    """Raise unless a file of a policy was made for this one.

    Args:
        made_for: the fingerprint of the policy it was made for; None if unknown.
        policy: the fingerprint of this policy.
        what: for the message, such as "the calibration in outputs/lift".
        remedy: advice for the message.
    """
    if made_for is None:
        raise SpecpolicyError(f"{what}: nothing says which policy this was made for, it may be another's: {remedy}")
    if not agree(made_for, policy):
        raise SpecpolicyError(
            f"{what}: made for another policy, or before the weights of this one were changed (fingerprint "
            f"{shown(made_for)}, this policy has {shown(policy)}): {remedy}"
        )


def add_weights(digest: Any, weights: Mapping[str, Tensor]) -> None:
    """Feed the names, shapes and values of a state dict to a hash of `hashlib`."""
    for name, value in sorted(weights.items()):
        value = value.detach().cpu()
        value = value.to(torch.float32 if value.is_floating_point() else torch.int64)
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().numpy())


def state_of(modules: Iterable[nn.Module]) -> tuple[int, ...]:
    """Return what changes when weights or buffers are changed in place, loaded or moved to another device.

    A fused optimizer changes weights without a trace; whoever trains with one calls `train` and `eval` of the policy.
    """
    state: list[int] = []
    left = list(modules)
    while left:  # faster than `parameters`, which looks for duplicates
        module = left.pop()
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    # Tensors made in inference mode count no changes.
                    state += (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        left += [child for child in module._modules.values() if child is not None]
    return tuple(state)


def _version(value: Tensor) -> int:
    """Return how often a tensor was changed in place; tensors of inference mode do not count."""
    return -1 if value.is_inference() else value._version
