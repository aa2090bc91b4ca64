"""What a surrogate is: a cheap function, fixed before sampling, that stands in for the network's x0."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """Guesses x0 at many states of a chunk at once, each from that state, its timestep and the condition alone."""

    def prepare(self, cond: Tensor | None) -> Tensor | None:
        """What it makes of the condition, once per chunk: (B, F), or None."""
        ...

    def __call__(self, states: Tensor, timesteps: Tensor, features: Tensor | None) -> Tensor:
        """x0 (B, W, H*D), unclipped, at `states` (B, W, H*D), `timesteps` (B, W)."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The surrogate on a device."""
        ...
