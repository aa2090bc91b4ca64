"""Denoisers whose network takes states at another scale, and its own time.

A chain walks states of unit variance and knows its levels by whole numbers. The network of a flow model, or of a
minimal iterative policy, takes other states and times. A `RescaledDenoiser` stands between them, so samplers, engines
and calibrations need not know of either.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class RescaledDenoiser(nn.Module, ABC):
    """Maps (y (N, H, D), level (N,), cond) to the output (N, H, D) of a network for the state r y.

    Attributes:
        kind: of the chains that it is for, see `TrainingProcess`.
    """

    kind: ClassVar[str]

    def __init__(self, network: Any):
        """Wrap a network: (state (N, H, D), time (N,), cond) -> (N, H, D), a module or a function."""
        super().__init__()
        self.network = network

    def forward(self, state: Tensor, level: Tensor, cond: Any = None) -> Tensor:
        """See the class."""
        scale, time = self.inputs(level, state)
        return self.network(scale[:, None, None] * state, time, cond)

    @abstractmethod
    def inputs(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return r (N,) and the network's time (N,) at levels (N,), in the number format of `like`."""

    @property
    def costly_condition(self) -> bool:
        """See `DiffusionTransformer`."""
        return bool(getattr(self.network, "costly_condition", False))

    def split_denoiser(self, horizon: int, rows: int) -> "SplitRescaled | None":
        """Return the same function in two parts, see there; None if the network cannot be split."""
        split = getattr(self.network, "split_denoiser", None)
        inner = None if split is None else split(horizon, rows)
        return None if inner is None else SplitRescaled(inner, self)


class SplitRescaled(nn.Module):
    """States y (N, H, D) and features (N, F) -> (N, H, D). Features are r, and then those of the network."""

    def __init__(self, split: Any, denoiser: RescaledDenoiser):
        super().__init__()
        self.split = split
        self._inputs = denoiser.inputs  # of the tables that the denoiser owns

    def time_features(self, level: Tensor) -> Tensor:
        """(N,) -> (N, F)."""
        like = next((value for value in self.split.parameters() if value.is_floating_point()), torch.zeros(0))
        # Of a network in bfloat16, too: states and times keep their digits, as those that it is given whole do.
        scale, time = self._inputs(level, like.new_zeros(0, dtype=torch.promote_types(like.dtype, torch.float32)))
        return torch.cat([scale[:, None], self.split.time_features(time)], dim=1)

    def condition_features(self, cond: Tensor | None) -> Tensor:
        """(M, ...) -> (M, F)."""
        return nn.functional.pad(self.split.condition_features(cond), (1, 0))

    def forward(self, sample: Tensor, features: Tensor) -> Tensor:
        """See the class."""
        return self.split(sample * features[:, :1].reshape(-1, 1, 1), features[:, 1:])
