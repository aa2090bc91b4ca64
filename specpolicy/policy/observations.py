"""Checks the observation of a policy: the frames of each key."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.images import is_image, unit_images

Observation = Mapping[str, Any]


def checked_frames(key: str, value: Any, expected: tuple[int, ...]) -> Tensor:
    """Return the frames (B, To, ...) of one key as they are, of one observation or a batch.

    `expected`: (To, ...) the shape of one observation's; channels of images may also come last.

    Raises:
        SpecpolicyError: they are not numbers, or their shape does not fit.
    """
    value = _tensor(key, value)
    value = value[None] if value.dim() == len(expected) else value
    layouts = [expected]
    if is_image(expected[1:]):
        layouts.append((expected[0], *expected[2:], expected[1]))  # channels last
    if value.dim() != len(expected) + 1 or tuple(value.shape[1:]) not in layouts:
        raise SpecpolicyError(
            f"observation '{key}' has shape {tuple(value.shape)}: expected {expected} or (batch, *{expected})"
        )
    return value


def network_frames(key: str, value: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return checked frames (B, To, *shape) as float32 on a device; images scaled, channels first.

    Raises:
        SpecpolicyError: images whose scale is not known.
    """
    if is_image(shape):
        value = unit_images(key, value, shape)
    return value.to(device, torch.float32)


def _tensor(key: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise SpecpolicyError(f"observation '{key}' is no array of numbers ({error})") from None
    if tensor.is_complex():
        raise SpecpolicyError(f"observation '{key}' holds complex numbers: real ones are expected")
    return tensor
