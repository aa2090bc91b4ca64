"""The network of a minimal iterative policy as the denoiser of its chain, see `specpolicy.diffusion.mip`."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from specpolicy.denoisers.rescaled import RescaledDenoiser
from specpolicy.diffusion.mip import MIPProcess


class MIPDenoiser(RescaledDenoiser):
    """Asks the network from nothing at level 1, whatever the chain begins with, and from the state at level 0."""

    kind: ClassVar[str] = MIPProcess.kind
    scales: Tensor
    times: Tensor

    def __init__(self, network: Any, time: float, time_scale: float = 1.0):
        """Wrap a network.

        Args:
            network: (state (N, H, D), time (N,), cond) -> chunk (N, H, D).
            time: of the second question; that of the first is 0.
            time_scale: times are multiplied by it.
        """
        super().__init__(network)
        self.register_buffer("scales", torch.tensor([1.0, 0.0]), persistent=False)
        self.register_buffer("times", torch.tensor([time_scale * time, 0.0]), persistent=False)

    def inputs(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """See `RescaledDenoiser.inputs`."""
        return self.scales[level].to(like.dtype), self.times[level].to(like.dtype)
