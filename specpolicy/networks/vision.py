"""Image encoders of visuomotor policies: resize, crop, ResNet, spatial softmax, linear layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.resnet import ResNet
from specpolicy.parsing import check_choice, check_ranges

CROPS = ("round", "floor")
MOST_PIXELS = 4096  # of one side of an image


@dataclass(frozen=True)
class VisionOptions:
    """Options of the image encoder of a camera.

    Attributes:
        layers: of the ResNet, 18 or 34.
        group_norm: group norm in place of batch norm.
        keypoints: of the spatial softmax; None uses the 512 channels of the feature map directly.
        features: size of the linear layer after it; None for no such layer, which leaves 2 numbers a keypoint.
        resize: (height, width) that images are resized to first.
        crop: (height, width) of the middle part that the network sees.
        crop_offset: how half a pixel of offset is rounded: "round" (to even, torchvision) or "floor" (robomimic).
        shared: one encoder for all cameras.
    """

    layers: Literal[18, 34] = 18
    group_norm: bool = True
    keypoints: int | None = 32
    features: int | None = 64
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    crop_offset: Literal["round", "floor"] = "round"
    shared: bool = False

    def __post_init__(self) -> None:
        check_choice("crop_offset", self.crop_offset, CROPS)
        check_ranges(self, keypoints=(1, 4096), features=(1, 65536), resize=(1, MOST_PIXELS), crop=(1, MOST_PIXELS))

    @property
    def output_dim(self) -> int:
        """Features per image."""
        return self.features or 2 * (self.keypoints or 512)


class SpatialSoftmax(nn.Module):
    """Positions of activity in each feature map (Finn et al. 2016): (N, C, H, W) -> (N, K, 2), x and y in [-1, 1]."""

    temperature: Tensor
    positions: Tensor

    def __init__(self, channels: int, height: int, width: int, keypoints: int | None):
        super().__init__()
        self.projection = nn.Conv2d(channels, keypoints, 1) if keypoints is not None else nn.Identity()
        self.register_buffer("temperature", torch.ones(1))
        rows, columns = torch.linspace(-1, 1, height, dtype=torch.float64), torch.linspace(-1, 1, width).double()
        grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
        grid = torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2).float()
        self.register_buffer("positions", grid, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the expected position under the softmax over all pixels."""
        maps = self.projection(features).flatten(start_dim=2)
        return torch.softmax(maps / self.temperature, dim=-1) @ self.positions


class VisionEncoder(nn.Module):
    """Images (N, C, H, W) of `shape` (C, H, W), already normalised -> features (N, output_dim)."""

    def __init__(self, shape: Sequence[int], options: VisionOptions):
        super().__init__()
        self.options = options
        channels, *size = shape
        size = list(options.resize or size)
        if options.crop is not None:
            if any(crop > side for crop, side in zip(options.crop, size, strict=True)):
                raise SpecpolicyError(
                    f"images of {size[0]} x {size[1]} pixels are smaller than the crop {options.crop}"
                )
            size = list(options.crop)
        self.backbone = ResNet(channels, options.layers, options.group_norm)
        height, width = (ResNet.output_size(side) for side in size)
        self.pool = SpatialSoftmax(512, height, width, options.keypoints)
        keypoint_dim = 2 * (options.keypoints or 512)
        self.linear = nn.Linear(keypoint_dim, options.features) if options.features is not None else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Encode one batch of images."""
        if self.options.resize is not None:
            images = nn.functional.interpolate(
                images, tuple(self.options.resize), mode="bilinear", align_corners=False, antialias=True
            )
        keypoints = self.pool(self.backbone(self._crop(images)))
        return torch.relu(self.linear(keypoints.flatten(start_dim=1)))

    def _crop(self, images: Tensor) -> Tensor:
        if self.options.crop is None:
            return images
        (height, width), crop = images.shape[-2:], self.options.crop
        rounding = round if self.options.crop_offset == "round" else int
        top, left = rounding((height - crop[0]) / 2), rounding((width - crop[1]) / 2)
        return images[..., top : top + crop[0], left : left + crop[1]]
