"""Reads the sizes of a network from the shapes of its weights."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.resnet import ResNet
from specpolicy.policy.base import ENCODER


def shape_of(weights: Mapping[str, Tensor], name: str, where: str) -> tuple[int, ...]:
    """Return the shape of one weight.

    Raises:
        SpecpolicyError: it is missing.
    """
    if name not in weights:
        raise SpecpolicyError(f"{where} lacks the weight '{name}': the checkpoint is incomplete, or another network's")
    return tuple(weights[name].shape)


def count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different numbers in the group of `pattern`."""
    return len({match[1] for name in weights if (match := re.match(pattern, name))})


def unet_options(weights: Mapping[str, Tensor], where: str, n_groups: int = 8) -> tuple[dict[str, Any], int, int]:
    """Return options of our U-Net, its input dimension and its global condition's dimension, from weights under our
    names.

    The number of groups of a group norm cannot be read from the weights.
    """
    first = "down_modules.0.0.blocks.0.block.0.weight"
    width, input_dim, kernel_size = shape_of(weights, first, where)
    levels = count(weights, r"down_modules\.(\d+)\.")
    down_dims = [
        shape_of(weights, f"down_modules.{level}.0.blocks.0.block.0.weight", where)[0] for level in range(levels)
    ]
    embed = shape_of(weights, "diffusion_step_encoder.3.weight", where)[0]
    film, cond_dim = shape_of(weights, "down_modules.0.0.cond_encoder.1.weight", where)
    options = {
        "kind": "unet",
        "diffusion_step_embed_dim": embed,
        "down_dims": down_dims,
        "kernel_size": kernel_size,
        "n_groups": n_groups,
        "cond_predict_scale": film == 2 * width,
    }
    return options, input_dim, cond_dim - embed


def vision_options(weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Return those of our `ResNetOptions` that follow from the weights of image encoders, under our names."""
    prefix = f"{ENCODER}vision.0."
    blocks = count(weights, re.escape(prefix) + r"backbone\.6\.(\d+)\.")
    projection, linear = (f"{prefix}{name}.weight" for name in ("pool.projection", "linear"))
    shape_of(weights, f"{prefix}backbone.0.weight", where)
    if f"{prefix}backbone.4.0.conv3.weight" in weights or blocks not in (2, 6):
        raise SpecpolicyError(f"{where} has an image encoder that is neither a ResNet-18 nor a ResNet-34")
    return {
        "layers": 18 if blocks == 2 else 34,
        "group_norm": f"{prefix}backbone.1.running_mean" not in weights,
        "keypoints": shape_of(weights, projection, where)[0] if projection in weights else None,
        "features": shape_of(weights, linear, where)[0] if linear in weights else None,
    }


def check_positions(
    weights: Mapping[str, Tensor],
    positions: tuple[str, int],
    images: Mapping[str, Sequence[int]],
    vision: Mapping[str, Any],
    where: str,
) -> None:
    """Compare the position tables of each camera's spatial softmax with its image shape.

    The rest of an image encoder fits images of any size, so only these tables show another crop.

    Args:
        weights: of the encoders, under the names of their project.
        positions: (pattern of the name of such a table, with the camera as its group; its numbers a pixel).
        images: (C, H, W) by the name of the camera.
        vision: our `ResNetOptions`.
        where: the file, for messages.

    Raises:
        SpecpolicyError: they differ.
    """
    pattern, numbers = positions
    for name, value in weights.items():
        if not (match := re.fullmatch(pattern, name)) or match[1] not in images:
            continue
        _, *size = images[match[1]]
        height, width = vision.get("crop") or vision.get("resize") or size
        wanted = ResNet.output_size(height) * ResNet.output_size(width)
        if value.numel() != wanted * numbers:
            raise SpecpolicyError(
                f"{where}: '{name}' has the shape {list(value.shape)}, which images of {height} x {width} pixels "
                "do not give: its crop or the size of its images must be another"
            )
