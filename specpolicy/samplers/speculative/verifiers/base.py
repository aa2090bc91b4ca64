"""What a verifier is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.samplers.speculative.coupling import TINY, log_ratio


@dataclass
class Decision:
    """`accepted` (B,) int64 drafts of each row; `shift` (B,): by how much the noise of the first rejected step moves
    along its gap to give the corrected state from the target mean; zero where the whole window was accepted."""

    accepted: Tensor
    shift: Tensor


class Verifier(ABC):
    """Accepts a prefix of the drafts and corrects the first one after it, so that the target's law is kept.

    `keeps_noise`: decisions up to the first rejection do not depend on later noises, which may be used again.
    """

    name: ClassVar[str]
    keeps_noise: ClassVar[bool]

    @abstractmethod
    def decide(self, delta: Tensor, coordinate: Tensor, uniform: Tensor, second: Tensor, width: Tensor) -> Decision:
        """Decide on gaps `delta` and coordinates S (B, W), of which each row uses the first `width` (B,).

        `uniform` (B, W) and `second` (B, W+1) are independent uniform numbers. All float64 on the CPU.
        """


class TokenVerifier(Verifier):
    """Accepts drafts one by one with probability min(1, q/p) and stops at the first rejection (Leviathan et al.,
    2023); subclasses say how a rejected draft is corrected."""

    keeps_noise = True

    def decide(self, delta: Tensor, coordinate: Tensor, uniform: Tensor, second: Tensor, width: Tensor) -> Decision:
        """See `Verifier.decide`."""
        inside = torch.arange(delta.shape[1]) < width[:, None]
        passed = (torch.log1p(-uniform) <= log_ratio(delta, coordinate)) | (delta <= TINY)
        accepted = (passed & inside).cumprod(dim=1).sum(dim=1)
        shift = torch.zeros(len(width), dtype=torch.float64)
        row = (accepted < width).nonzero().flatten()
        if len(row):
            at = accepted[row]
            shift[row] = self.target_coordinate(delta[row, at], coordinate[row, at], second[row, at])
            shift[row] -= coordinate[row, at]
        return Decision(accepted, shift)

    @abstractmethod
    def target_coordinate(self, delta: Tensor, coordinate: Tensor, uniform: Tensor) -> Tensor:
        """Coordinates (N,) of the corrected states, from the target mean in units of sigma."""
