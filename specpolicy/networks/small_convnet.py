"""A small convolutional network for images, fast enough to be trained on two cores."""

from collections.abc import Sequence

from torch import nn

CHANNELS_PER_GROUP = 8


class SmallConvNet(nn.Sequential):
    """Images (N, channels, H, W) -> feature maps (N, widths[-1], H / 2^n, W / 2^n), rounded up, n = len(widths) - 1.

    Each layer is a convolution, a group norm and a ReLU. The first convolution is 5 x 5, the others are 3 x 3; all but
    the last one halve the image, whose last map still tells places a few pixels apart.
    """

    def __init__(self, channels: int, widths: Sequence[int]):
        parts: list[nn.Module] = []
        for level, width in enumerate(widths):
            kernel, stride = (5 if level == 0 else 3), (1 if level == len(widths) - 1 else 2)
            parts += [
                nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False),
                nn.GroupNorm(width // CHANNELS_PER_GROUP, width),
                nn.ReLU(),
            ]
            channels = width
        super().__init__(*parts)
        self.levels = len(widths) - 1

    def output_size(self, side: int) -> int:
        """Return the height or width of the feature map for an image of that height or width."""
        return -(-side // 2**self.levels)
