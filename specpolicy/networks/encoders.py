"""Observation encoders: from normalised observations to the condition of the denoiser."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from specpolicy.networks.clip import LanguageEncoder
from specpolicy.networks.vision import FrameEncoder, frame_encoder
from specpolicy.networks.vision_options import LanguageOptions, VisionOptions

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
    """An encoder with images among the keys, (B, To, C, H, W), or with texts as tokens, (B, To, L): each frame of each
    camera is encoded, and the newest text, which stands for all frames."""

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        n_obs_steps: int,
        options: VisionOptions | None,
        tokens: bool = False,
        language: LanguageOptions | None = None,
    ):
        """`shapes` maps each key to its dimension, or to (channels, height, width)."""
        images = {key: tuple(shape) for key, shape in shapes.items() if not isinstance(shape, int)}
        seen = 0 if options is None else options.output_dim
        sizes = {key: shape if isinstance(shape, int) else seen for key, shape in shapes.items()}
        if language is not None:
            sizes[language.key] = language.features
        super().__init__(sizes, n_obs_steps, tokens)
        self.shapes = dict(shapes)
        self.cameras = list(images)
        self.vision = nn.ModuleList()
        if options is not None:
            looked_at = self.cameras[:1] if options.shared else self.cameras
            self.vision.extend(frame_encoder(images[key], options) for key in looked_at)
        self.text = None if language is None else language.key
        self.language = None if language is None else LanguageEncoder(language)

    def features(self, key: str, value: Tensor, view: Tensor | None = None) -> Tensor:
        """Return the features of one key in a frame: (B, To, D)."""
        if self.language is not None and key == self.text:
            return self.language(value[:, -1])[:, None].expand(-1, value.shape[1], -1)
        if key not in self.cameras:
            return value
        encoder = self.of_camera(key)
        # All frames of an observation are cropped alike, so that what moves in them is the scene.
        view = None if view is None else view.repeat_interleave(value.shape[1], dim=0)
        return encoder(value.flatten(end_dim=1), view).unflatten(0, value.shape[:2])

    def of_camera(self, key: str) -> FrameEncoder:
        """Return the encoder of a camera's images; with `shared` it is that of all."""
        encoder = self.vision[self.cameras.index(key) % len(self.vision)]
        assert isinstance(encoder, FrameEncoder)
        return encoder
