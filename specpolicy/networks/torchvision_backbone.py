"""Backbones of torchvision, an optional package, with weights from a file."""

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.vision_options import TorchvisionOptions
from specpolicy.parsing import check_regular, closest, one_line
from specpolicy.parsing.tensors import read_tensors

CHANNELS_PER_GROUP = 16


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm that keeps the statistics and scales it was loaded with, also in training mode."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__(channels, eps)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        """Stay as it is."""
        return super().train(False)


class TorchvisionBackbone(nn.Module):
    """The convolutional part of a network of torchvision: images (N, 3, H, W) -> feature maps (N, channels, h, w)."""

    def __init__(self, channels: int, options: TorchvisionOptions):
        super().__init__()
        if channels != 3:
            raise SpecpolicyError(f"images of {channels} channels: {options.name} of torchvision sees three")
        self.frozen = options.frozen
        self.body = _body(options.name)
        self._keep_norms(options.norm == "group")
        if options.frozen:
            self.requires_grad_(False)
            self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature maps."""
        return self.body(images)

    def train(self, mode: bool = True) -> "TorchvisionBackbone":
        """See `nn.Module.train`; a frozen one is never in training mode."""
        return super().train(mode and not self.frozen)

    def _keep_norms(self, group: bool) -> None:
        """Replace batch norms, which disagree with averaged weights and small batches."""
        for parent in list(self.body.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    width = child.num_features
                    groups = max(1, width // CHANNELS_PER_GROUP)
                    while width % groups:
                        groups -= 1
                    norm = nn.GroupNorm(groups, width) if group else FrozenBatchNorm(width, child.eps)
                    setattr(parent, name, norm)


def map_shape(options: TorchvisionOptions, size: tuple[int, int]) -> tuple[int, int, int]:
    """Return (channels, height, width) of the feature map of images of a size, without memory.

    Raises:
        SpecpolicyError: no such network, torchvision missing, images too small for it.
    """
    with torch.device("meta"):
        backbone = TorchvisionBackbone(3, options).eval()
        try:
            channels, height, width = backbone(torch.zeros(1, 3, *size)).shape[1:]
        except RuntimeError as error:
            raise SpecpolicyError(
                f"{options.name} of torchvision cannot see images of {size[0]} x {size[1]} pixels ({one_line(error)})"
            ) from None
    return channels, height, width


def load_backbone(backbone: TorchvisionBackbone, options: TorchvisionOptions) -> None:
    """Load the weights that the options name; those of its head are left out.

    Raises:
        SpecpolicyError: no such file, a damaged one, weights of another network.
    """
    assert options.weights is not None
    own, found = backbone.body.state_dict(), _read(Path(options.weights))
    names = _names(options.name, found)
    for name, value in own.items():
        given = names.get(name)
        if given is None and options.norm == "group" and name.endswith(("weight", "bias")) and value.dim() == 1:
            continue  # a group norm where the file has none
        if given is None:
            raise SpecpolicyError(f"{options.weights} lacks weights of {options.name}: of another network?")
        if given.shape != value.shape:
            raise SpecpolicyError(
                f"{options.weights}: weights of shape {tuple(given.shape)} where {options.name} has "
                f"{tuple(value.shape)}: of another network?"
            )
    backbone.body.load_state_dict({name: names.get(name, value) for name, value in own.items()})


def _body(name: str) -> nn.Module:
    """Return a network of torchvision without its head."""
    torchvision: Any = _torchvision()
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        hint = closest(name, known) or ": torchvision.models.list_models() lists them"
        raise SpecpolicyError(f"torchvision has no network {name}{hint}")
    network = torchvision.models.get_model(name, weights=None)
    if hasattr(network, "layer4"):
        return nn.Sequential(*list(network.children())[:-2])
    if isinstance(getattr(network, "features", None), nn.Module):
        return network.features
    raise SpecpolicyError(
        f"{name} of torchvision gives no feature map: use a ResNet, MobileNet, EfficientNet or ConvNeXt"
    )


def _names(network: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a whole network under the names that `_body` gives them."""
    if any(name.startswith("features.") for name in weights):
        return {name.removeprefix("features."): value for name, value in weights.items()}
    numbers = {"conv1": "0", "bn1": "1", **{f"layer{stage}": str(stage + 3) for stage in range(1, 5)}}
    return {
        ".".join([numbers[first], rest]): value
        for name, value in weights.items()
        for first, _, rest in [name.partition(".")]
        if first in numbers
    }


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SpecpolicyError(f"no weights at {path}: weights are read from a file, and nothing is downloaded")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    check_regular(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError) as error:
        raise SpecpolicyError(f"{path} holds no weights that can be read ({one_line(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise SpecpolicyError(f"{path} is no state dict, which maps names to tensors")
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        raise SpecpolicyError(
            "an image encoder of torchvision needs that package: pip install 'specpolicy[torchvision]'"
        ) from None
    except RuntimeError as error:  # as for CUDA beside a torch for the CPU
        raise SpecpolicyError(
            f"torchvision does not fit this torch ({one_line(error)}): install the build that was made for it"
        ) from None
