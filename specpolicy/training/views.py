"""What training changes in the images of a batch: where they are cropped, and their colours.

All frames that a camera has in a window are changed alike, so that what differs between them is the scene. Different
windows and cameras are changed differently. All is done on the batch, on its device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def draw_views(cameras: Sequence[str], rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return random numbers in [0, 1) for `rows` windows: "crop/<camera>" (rows, 2), "colour/<camera>" (rows, 3)."""
    found = {}
    for camera in cameras:
        found[f"crop/{camera}"] = torch.rand(rows, 2, generator=generator)
        found[f"colour/{camera}"] = torch.rand(rows, 3, generator=generator)
    return found


def jittered(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Return images with other brightness, contrast and saturation.

    Args:
        images: (N, To, C, H, W) in [0, 1]; saturation is of three channels.
        draws: (N, 3) in [0, 1), of a window: 0.5 changes nothing.
        strength: the largest relative change of each.
    """
    if not strength:
        return images
    factors = (1 + strength * (2 * draws - 1)).to(images.dtype)
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1, 1).unbind(dim=1)
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean(dim=(1, 2, 3, 4), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    if images.shape[2] == len(GREY):
        grey = _grey(images)
        images = (grey + saturation * (images - grey)).clamp(0, 1)
    return images


def _grey(images: Tensor) -> Tensor:
    """Return (N, To, 1, H, W)."""
    if images.shape[2] != len(GREY):
        return images.mean(dim=2, keepdim=True)
    red, green, blue = images.split(1, dim=2)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue
