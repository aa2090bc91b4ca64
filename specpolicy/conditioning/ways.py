"""The base class of the ways to draw a chunk given committed actions: one function of x0 each, a file each.

A way replaces x0, the network's prediction of the chunk at a state, by x0' = g(x0, state, timestep, committed). A step
of the chain stays Gaussian with its own noise. So a conditioned chain is the chain of another denoiser, and every exact
sampler draws from it exactly. What it draws is the distribution of the sequential sampler of the conditioned chain. It
is not the policy's distribution given the committed actions, which no way here knows exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.conditioning.given import Given
from specpolicy.diffusion import TrainingProcess
from specpolicy.diffusion.process import LEAST_SIGNAL

Predict = Callable[[Tensor], Tensor]  # from states (..., d) to x0 (..., d), unclipped


class Way(ABC):
    """One way, for one training process.

    Attributes:
        name: its name.
        evaluations: of the network for one x0'; they follow one another.
        fixed_shapes: whether it is a function of tensors alone, which a GPU can run as one graph.
        differentiates: whether it takes gradients of the network: `x0` then comes with its graph, back to `state`.
    """

    name: ClassVar[str]
    evaluations: ClassVar[int] = 1
    fixed_shapes: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False

    def __init__(self, process: TrainingProcess):
        self.process = process
        self._alpha_bar = process.alpha_bar.clamp(min=LEAST_SIGNAL).float()

    def weights(self, count: int, known: int) -> Tensor:
        """Return how firmly each of the `known` actions is held, of which `count` are committed: (known,)."""
        return (torch.arange(known) < count).float()

    @abstractmethod
    def __call__(self, x0: Tensor, predict: Predict, state: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """Return x0' (..., d).

        Args:
            x0: (..., d) the prediction at `state`, unclipped.
            predict: the function that made it, of states at the same timesteps.
            state: (..., d).
            timestep: (...) int64.
            given: with a count above 0 in every row that matters; rows without any are left as they were.
        """

    def touched(self, given: Given) -> Tensor:
        """Return where x0' may differ from x0, (..., d) bool; elsewhere the network's output is kept bit for bit."""
        return given.weights > 0

    @property
    def of_guesses(self) -> Way:
        """The way for what drafters guess, which may have no gradients."""
        return self

    def alpha_bar(self, timestep: Tensor, like: Tensor) -> Tensor:
        """Return the share of the signal at `timestep` (...), as (..., 1) beside `like`."""
        if self._alpha_bar.device != like.device:
            self._alpha_bar = self._alpha_bar.to(like.device)
        return self._alpha_bar[timestep][..., None].to(like.dtype)


def held(x0: Tensor, given: Given) -> Tensor:
    """Return x0 with the committed values in their places."""
    return torch.where(given.weights >= 1, given.values, x0)
