"""What a surrogate is: a cheap function, fixed before sampling, that stands in for the network's x0."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """Guesses x0 at many states of a chunk at once, each from that state, its timestep and the condition alone."""

    def prepare(self, cond: Tensor | None) -> Tensor | None:
        """What it makes of the condition, once per chunk: (B, F), or None."""
        ...

    def at(self, timesteps: Tensor, features: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The guess at `timesteps` (B, W): a function from states (B, W, H*D) to x0 (B, W, H*D), unclipped. What
        depends on the timesteps alone is looked up once, for windows are drafted several times over."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The surrogate on a device."""
        ...
