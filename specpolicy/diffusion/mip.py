"""The two regressions of a minimal iterative policy (MIP; Pan et al. 2025, arXiv 2512.01809), read as a chain.

A network f is asked twice, for the chunk from nothing, and for the chunk from the first answer,

    a_0 = f(0, 0),   a_1 = f(a_0, t),   t = 0.9,

and has learnt the second from chunks with noise of deviation 1 - t. Both steps end at the network's output and add no
noise, so what is drawn is one chunk for each observation. There is nothing to speculate on.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.diffusion.process import TrainingProcess


@dataclass(frozen=True)
class MIPProcess(TrainingProcess):
    """Level 1 is the first question, level 0 the second. A chain of one step is plain regression.

    No state holds a signal that a step could keep: abar is 0 before each step and 1 after it.
    """

    kind: ClassVar[str] = "mip"

    alpha_bar: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    prediction: str = "sample"
    spacing: str = "trailing"

    def __post_init__(self) -> None:
        pass

    def left(self, alpha_bar: Tensor) -> Tensor:
        """See `TrainingProcess.left`."""
        return torch.ones_like(alpha_bar)

    def left_by_ddim(self, timesteps: Tensor, steps: int) -> Tensor:
        """See `TrainingProcess.left_by_ddim`."""
        return self.left(self.alpha_bar[timesteps])
