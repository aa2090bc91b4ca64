"""Images on their way to a policy: they stay bytes until one function scales them.

Between an environment, a robot, a recording and a file, images stay unchanged, usually bytes. Only `unit_images` gives
them a scale and a layout, so no image is scaled twice or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-3  # above 1 and below 0: possible after resizing and in half precision, and far from bytes


def unit_images(key: str, images: Tensor, shape: Sequence[int]) -> Tensor:
    """Return images for a network: float32 in [0, 1], channels first.

    Args:
        key: name of the observation, for messages.
        images: (..., C, H, W) or (..., H, W, C), bytes of 0 to 255 or floats in [0, 1].
        shape: (C, H, W). Where both layouts have this shape, channels are first.

    Returns:
        (..., C, H, W).

    Raises:
        SpecpolicyError: another shape, whole numbers that are not bytes, or floats outside [0, 1].
    """
    import torch  # imported here, because a control loop that only keeps images does not need it

    channels, height, width = shape
    found = tuple(images.shape[-3:])
    if found not in ((channels, height, width), (height, width, channels)):
        raise SpecpolicyError(
            f"the images '{key}' have shape {found}: expected {(channels, height, width)}, or channels last"
        )
    if found != (channels, height, width):
        images = images.movedim(-1, -3)
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise SpecpolicyError(f"the images '{key}' are {kind}: give bytes (uint8), or floats in [0, 1]")
    images = images.to(torch.float32)
    if images.numel():
        least, most = (float(value) for value in torch.aminmax(images))
        if not (least >= -ROUNDING and most <= 1 + ROUNDING):  # also true for NaN
            raise SpecpolicyError(
                f"the images '{key}' hold numbers from {least:g} to {most:g}: give floats in [0, 1], or bytes (uint8)"
            )
    return images


def is_image(shape: Any) -> bool:
    """Whether frames of this shape are images, (C, H, W), and not vectors."""
    return not isinstance(shape, int) and len(shape) == 3


def drawn_on_demand(value: Any) -> bool:
    """Whether a part of an observation is a picture that is drawn when an array is made of it, and not before."""
    return bool(getattr(value, "drawn_on_demand", False))


def kept(value: Any) -> Any:
    """A part of an observation to be looked at later, if at all: a copy, for whoever made its array may fill it anew.
    What is drawn on demand stays as it is."""
    return value if drawn_on_demand(value) else np.array(value)


def as_recorded(value: Any) -> np.ndarray:
    """Return a part of an observation for storage: images of bytes unchanged, everything else as float32."""
    array = np.asarray(value)
    return array if array.dtype == np.uint8 and array.ndim >= 2 else array.astype(np.float32, copy=False)
