"""The options of image encoders, as they are written in yaml and in a checkpoint: `kind` names the network.

A crop is the middle part of an image when a policy acts, and a random part of the same size while it is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_choice, check_ranges

CROPS = ("round", "floor")
NORMS = ("frozen_batch", "group")
MOST_PIXELS = 4096  # of one side of an image


@dataclass(frozen=True)
class _Seen:
    """Options that all encoders share: what they see.

    Attributes:
        resize: (height, width) that images are resized to first.
        crop: (height, width) of the part that the network sees.
        crop_offset: how half a pixel of offset is rounded: "round" (to even, torchvision) or "floor" (robomimic).
        shared: one encoder for all cameras.
    """

    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    crop_offset: Literal["round", "floor"] = "round"
    shared: bool = False

    def __post_init__(self) -> None:
        check_choice("crop_offset", self.crop_offset, CROPS)
        check_ranges(self, resize=(1, MOST_PIXELS), crop=(1, MOST_PIXELS))

    def seen_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return (height, width) of what the network sees of images of a `size`.

        Raises:
            SpecpolicyError: they are smaller than the crop.
        """
        height, width = self.resize or size
        if self.crop is None:
            return height, width
        if self.crop[0] > height or self.crop[1] > width:
            raise SpecpolicyError(
                f"images of {height} x {width} pixels are smaller than the crop {tuple(self.crop)}: crop less of them, "
                "or nothing (null)"
            )
        return self.crop[0], self.crop[1]


@dataclass(frozen=True)
class _Vision(_Seen):
    """Options of encoders that end with a spatial softmax.

    Attributes:
        keypoints: of the spatial softmax; None uses the channels of the feature map directly.
        features: size of the linear layer after it; None for no such layer, which leaves 2 numbers a keypoint.
    """

    keypoints: int | None = 32
    features: int | None = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, keypoints=(1, 4096), features=(1, 65536))

    @property
    def channels(self) -> int:
        """Of the feature map."""
        raise NotImplementedError

    @property
    def output_dim(self) -> int:
        """Features per image."""
        return self.features or 2 * (self.keypoints or self.channels)


@dataclass(frozen=True)
class ResNetOptions(_Vision):
    """Options of `ResNet`; the ones of a mapping without a kind.

    Attributes:
        layers: 18 or 34.
        group_norm: group norm in place of batch norm.
    """

    without_kind: ClassVar[bool] = True

    kind: Literal["resnet"] = "resnet"
    layers: Literal[18, 34] = 18
    group_norm: bool = True

    @property
    def channels(self) -> int:
        """Of the feature map."""
        return 512


@dataclass(frozen=True)
class SmallOptions(_Vision):
    """Options of `SmallConvNet`, for policies that are trained and run on a few cores.

    Attributes:
        widths: channels of each convolution; all but the last halve the image.
    """

    kind: Literal["small"] = "small"
    widths: Sequence[int] = (32, 64, 128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, widths=(8, 4096))
        if not 2 <= len(self.widths) <= 8 or any(width % 8 for width in self.widths):
            raise SpecpolicyError(f"widths {list(self.widths)}: give 2 to 8 multiples of 8")

    @property
    def channels(self) -> int:
        """Of the feature map."""
        return self.widths[-1]


@dataclass(frozen=True)
class TorchvisionOptions(_Vision):
    """Options of `TorchvisionBackbone`: a network of torchvision, an optional package, without its head.

    Attributes:
        name: as torchvision calls it, such as "resnet18" or "mobilenet_v3_small".
        weights: file of its weights (.pth or .safetensors), read once when training begins and then part of the
            checkpoint; None: random ones. Nothing is downloaded.
        norm: "frozen_batch": batch norms keep the statistics and scales of the weights; "group": group norms in their
            place, which are trained.
        frozen: the whole backbone keeps its weights; what follows it is trained.
    """

    kind: Literal["torchvision"] = "torchvision"
    name: str = "resnet18"
    weights: str | None = None
    norm: Literal["frozen_batch", "group"] = "frozen_batch"
    frozen: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("norm", self.norm, NORMS)
        if self.features is None:
            raise SpecpolicyError("features is null: a backbone of torchvision is followed by a linear layer")
        if self.frozen and self.norm != "frozen_batch":
            raise SpecpolicyError("frozen=true keeps what was learnt with batch norms: use norm=frozen_batch")


@dataclass(frozen=True)
class TowerOptions:
    """Sizes of a tower of CLIP.

    Attributes:
        width: numbers of a token.
        layers, heads: of the tower.
        hidden: width of its MLPs.
        activation: of its MLPs.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"

    def __post_init__(self) -> None:
        check_ranges(self, width=(1, 65536), layers=(1, 256), heads=(1, 4096), hidden=(1, 65536))
        if self.width % self.heads:
            raise SpecpolicyError(f"width={self.width} must be a multiple of heads={self.heads}")


@dataclass(frozen=True)
class ClipOptions(TowerOptions, _Seen):
    """Options of `ClipVision`.

    Attributes:
        patch: height and width of a patch, pixels.
        size: height and width of the images that the tower sees, after `resize` and `crop`.
    """

    patch: int = 16
    size: int = 224
    kind: Literal["clip"] = "clip"

    def __post_init__(self) -> None:
        _Seen.__post_init__(self)
        TowerOptions.__post_init__(self)
        check_ranges(self, patch=(1, MOST_PIXELS), size=(self.patch, MOST_PIXELS))

    @property
    def output_dim(self) -> int:
        """Features per image."""
        return self.width

    def seen_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return (height, width) of what the tower sees of images of a `size`.

        Raises:
            SpecpolicyError: they are smaller than the crop, or the tower is made for images of another size.
        """
        seen = super().seen_size(size)
        if seen != (self.size, self.size):
            raise SpecpolicyError(
                f"images of {seen[0]} x {seen[1]} pixels reach a tower of CLIP made for {self.size} x {self.size}: its "
                "resize or crop must give that size"
            )
        return seen


@dataclass(frozen=True)
class LanguageOptions(TowerOptions):
    """Options of `LanguageEncoder`.

    Attributes:
        key: of the observation that holds the tokens of a text.
        vocabulary: number of tokens.
        positions: most tokens of a text.
        features: numbers that a text becomes.
    """

    width: int = 512
    layers: int = 12
    heads: int = 8
    hidden: int = 2048
    key: str = "observation.language.tokens"
    vocabulary: int = 49408
    positions: int = 77
    features: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, vocabulary=(1, 2**24), positions=(1, 65536), features=(1, 65536))


VisionOptions = ResNetOptions | SmallOptions | TorchvisionOptions | ClipOptions
