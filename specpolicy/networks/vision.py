"""Image encoders of visuomotor policies: resize, crop, backbone, spatial softmax, linear layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.clip import ClipVision
from specpolicy.networks.resnet import ResNet
from specpolicy.networks.small_convnet import SmallConvNet
from specpolicy.networks.torchvision_backbone import TorchvisionBackbone, map_shape
from specpolicy.networks.vision_options import (
    ClipOptions,
    ResNetOptions,
    SmallOptions,
    TorchvisionOptions,
    VisionOptions,
)


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
        if torch.is_autocast_enabled(maps.device.type):  # bfloat16 cannot tell neighbouring pixels apart
            with torch.autocast(maps.device.type, enabled=False):
                return self._expected(maps.float())
        return self._expected(maps)

    def _expected(self, maps: Tensor) -> Tensor:
        return torch.softmax(maps / self.temperature, dim=-1) @ self.positions


class FrameEncoder(nn.Module):
    """Images (N, C, H, W) of `shape` (C, H, W), already normalised -> features (N, output_dim)."""

    def __init__(self, options: VisionOptions):
        super().__init__()
        self.options = options

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """Encode one batch of images.

        Args:
            images: (N, C, H, W).
            view: (N, 2) in [0, 1), where the crop of each image begins, as a share of the free rows and columns, for
                training; None: in the middle.
        """
        return self.after_preparation()(self.prepared(images, view))

    def prepared(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """Return images as the backbone sees them: resized and cropped. Arguments as of `forward`."""
        if self.options.resize is not None:
            images = nn.functional.interpolate(
                images, tuple(self.options.resize), mode="bilinear", align_corners=False, antialias=True
            )
        return self._crop(images, view)

    def after_preparation(self) -> nn.Module:
        """Return the network from `prepared` images to features, weights shared: what an engine can express."""
        raise NotImplementedError

    def _crop(self, images: Tensor, view: Tensor | None) -> Tensor:
        if self.options.crop is None:
            return images
        (height, width), crop = images.shape[-2:], self.options.crop
        if view is not None:
            free = torch.tensor([height - crop[0] + 1, width - crop[1] + 1], device=view.device)
            top, left = (view * free).long().minimum(free - 1).unbind(dim=1)
            parts = images.unfold(2, crop[0], 1).unfold(3, crop[1], 1)  # (N, C, tops, lefts, height, width), no copy
            return parts[torch.arange(len(images), device=images.device), :, top, left]
        rounding = round if self.options.crop_offset == "round" else int
        above, before = rounding((height - crop[0]) / 2), rounding((width - crop[1]) / 2)
        return images[..., above : above + crop[0], before : before + crop[1]]


class VisionEncoder(FrameEncoder):
    """A backbone and a spatial softmax of its feature map."""

    def __init__(self, shape: Sequence[int], options: ResNetOptions | SmallOptions | TorchvisionOptions):
        super().__init__(options)
        channels, *size = shape
        self.backbone, map_channels, height, width = _backbone(channels, options.seen_size(size), options)
        self.pool = SpatialSoftmax(map_channels, height, width, options.keypoints)
        keypoint_dim = 2 * (options.keypoints or map_channels)
        self.linear = nn.Linear(keypoint_dim, options.features) if options.features is not None else nn.Identity()

    def after_preparation(self) -> nn.Module:
        """See `FrameEncoder`."""
        return nn.Sequential(self.backbone, self.pool, nn.Flatten(), self.linear, nn.ReLU())


class ClipEncoder(FrameEncoder):
    """The vision tower of CLIP."""

    def __init__(self, shape: Sequence[int], options: ClipOptions):
        super().__init__(options)
        channels, *size = shape
        if channels != 3:
            raise SpecpolicyError(f"images of {channels} channels: a tower of CLIP sees three")
        options.seen_size(size)
        self.tower = ClipVision(options)

    def after_preparation(self) -> nn.Module:
        """See `FrameEncoder`."""
        return self.tower


def frame_encoder(shape: Sequence[int], options: VisionOptions) -> FrameEncoder:
    """Return the encoder of images of `shape` (C, H, W)."""
    return ClipEncoder(shape, options) if isinstance(options, ClipOptions) else VisionEncoder(shape, options)


def _backbone(
    channels: int, size: tuple[int, int], options: ResNetOptions | SmallOptions | TorchvisionOptions
) -> tuple[nn.Module, int, int, int]:
    """Return the backbone of an encoder, and channels, height and width of its feature map."""
    backbone: Any
    if isinstance(options, ResNetOptions):
        backbone = ResNet(channels, options.layers, options.group_norm)
    elif isinstance(options, SmallOptions):
        backbone = SmallConvNet(channels, options.widths)
    else:
        return TorchvisionBackbone(channels, options), *map_shape(options, size)
    return backbone, options.channels, *(backbone.output_size(side) for side in size)
