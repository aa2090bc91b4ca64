"""Observation encoders: from normalised observations to the condition of the denoiser."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from specpolicy.networks.vision import VisionEncoder
from specpolicy.networks.vision_options import VisionOptions

Shape = int | Sequence[int]  # of one frame of a key: a dimension, or (channels, height, width) of an image


class LowDimEncoder(nn.Module):
    """Concatenates low-dimensional keys: {key: (B, To, D_key)} -> (B, To * D), or (B, To, D) as tokens."""

    def __init__(self, shapes: Mapping[str, int], n_obs_steps: int, tokens: bool = False):
        """`shapes` maps each key, in the order of the condition vector, to its dimension."""
        super().__init__()
        self.shapes: dict[str, Shape] = dict(shapes)
        self.frame_dim = sum(shapes.values())
        self.n_obs_steps = n_obs_steps
        self.tokens = tokens

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in the order of the condition vector."""
        return tuple(self.shapes)

    @property
    def output_dim(self) -> int:
        """Dimension of the condition vector, or of one token."""
        return self.frame_dim if self.tokens else self.frame_dim * self.n_obs_steps

    def features(self, key: str, value: Tensor, view: Tensor | None = None) -> Tensor:
        """Return the features of one key in a frame: (B, To, D)."""
        return value

    def forward(self, observation: Mapping[str, Tensor], views: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode one batch of observation histories.

        `views`: by camera (B, 2), where the crops of an observation's images begin (see `VisionEncoder`); None: all
        crops are the middle.
        """
        views = views or {}
        return self.joined({key: self.features(key, observation[key], views.get(key)) for key in self.keys})

    def joined(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the condition for the features of each key: {key: (B, To, D)}."""
        frames = torch.cat([features[key] for key in self.keys], dim=-1)
        return frames if self.tokens else frames.flatten(start_dim=1)


class ImageEncoder(LowDimEncoder):
    """An encoder with images among the keys, (B, To, C, H, W): each frame of each camera is encoded."""

    def __init__(self, shapes: Mapping[str, Shape], n_obs_steps: int, options: VisionOptions, tokens: bool = False):
        """`shapes` maps each key to its dimension, or to (channels, height, width)."""
        images = {key: tuple(shape) for key, shape in shapes.items() if not isinstance(shape, int)}
        sizes = {key: shape if isinstance(shape, int) else options.output_dim for key, shape in shapes.items()}
        super().__init__(sizes, n_obs_steps, tokens)
        self.shapes |= images
        self.cameras = list(images)
        looked_at = self.cameras[:1] if options.shared else self.cameras
        self.vision = nn.ModuleList([VisionEncoder(images[key], options) for key in looked_at])

    def features(self, key: str, value: Tensor, view: Tensor | None = None) -> Tensor:
        """Return the features of one key in a frame: (B, To, D)."""
        if key not in self.cameras:
            return value
        encoder = self.of_camera(key)
        # All frames of an observation are cropped alike, so that what moves in them is the scene.
        view = None if view is None else view.repeat_interleave(value.shape[1], dim=0)
        return encoder(value.flatten(end_dim=1), view).unflatten(0, value.shape[:2])

    def of_camera(self, key: str) -> VisionEncoder:
        """Return the encoder of a camera's images; with `shared` it is that of all."""
        encoder = self.vision[self.cameras.index(key) % len(self.vision)]
        assert isinstance(encoder, VisionEncoder)
        return encoder
