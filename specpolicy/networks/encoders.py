"""Observation encoders: from normalised observations to the condition of the denoiser."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LowDimEncoder(nn.Module):
    """Concatenates low-dimensional keys: {key: (B, To, D_key)} -> (B, To * D), or (B, To, D) as tokens."""

    def __init__(self, shapes: Mapping[str, int], n_obs_steps: int, tokens: bool = False):
        """`shapes` maps each key, in the order of the condition vector, to its dimension."""
        super().__init__()
        self.shapes = dict(shapes)
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

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Encode one batch of observation histories."""
        frames = torch.cat([observation[key] for key in self.keys], dim=-1)
        return frames if self.tokens else frames.flatten(start_dim=1)
