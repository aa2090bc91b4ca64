"""Sinusoidal embedding of the diffusion timestep (Vaswani et al. 2017), laid out as in Diffusion Policy."""

import math

import torch
from torch import Tensor, nn


class SinusoidalPosEmb(nn.Module):
    """Timesteps (N,) -> (N, dim): sines of geometrically falling frequencies, then their cosines."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        half = dim // 2
        frequencies = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, timestep: Tensor) -> Tensor:
        """Embed the timesteps."""
        angles = timestep[:, None].to(self.frequencies.dtype) * self.frequencies[None, :]
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


def expand_timestep(timestep: Tensor | int, batch: int, device: torch.device) -> Tensor:
    """Return a (batch,) tensor of timesteps from a number, a 0-d tensor or a vector."""
    if not isinstance(timestep, Tensor):
        timestep = torch.tensor(timestep, device=device)
    return timestep.to(device).reshape(-1).expand(batch)
