"""The convolutional part of ResNet-18 and ResNet-34 (He et al. 2016), children numbered as in the published networks.

Policies cut a torchvision ResNet after its last stage, so their weights are called `0` (first convolution), `1` (its
normalisation) and `4` to `7` (the stages); 2 and 3 hold no weights. These names are kept.
"""

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
CHANNELS_PER_GROUP = 16  # where group norm replaces batch norm


def _norm(channels: int, group_norm: bool) -> nn.Module:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels) if group_norm else nn.BatchNorm2d(channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, group_norm: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = _norm(outputs, group_norm)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = _norm(outputs, group_norm)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), _norm(outputs, group_norm)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.downsample(x))


class ResNet(nn.Sequential):
    """Images (N, channels, H, W) -> feature maps (N, 512, H / 32, W / 32), rounded up."""

    def __init__(self, channels: int = 3, layers: int = 18, group_norm: bool = True):
        if layers not in BLOCKS:
            raise SpecpolicyError(f"no ResNet with {layers} layers: use {' or '.join(map(str, BLOCKS))}")
        parts: list[nn.Module] = [
            nn.Conv2d(channels, WIDTHS[0], 7, stride=2, padding=3, bias=False),
            _norm(WIDTHS[0], group_norm),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        inputs = WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS[layers], strict=True)):
            stride = 1 if stage == 0 else 2
            blocks = [BasicBlock(inputs, width, stride, group_norm)]
            blocks += [BasicBlock(width, width, 1, group_norm) for _ in range(count - 1)]
            parts.append(nn.Sequential(*blocks))
            inputs = width
        super().__init__(*parts)

    @staticmethod
    def output_size(side: int) -> int:
        """Return the height or width of the feature map for an image of that height or width: five halvings, rounded
        up."""
        return -(-side // 32)
