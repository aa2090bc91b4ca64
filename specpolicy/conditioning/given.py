"""A condition and the committed values of its chunk, as one tensor: so they stay together wherever a sampler selects,
repeats or pads the rows of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Given:
    """What is committed of some chunks, d = H*D numbers each, as samplers see them (normalised).

    Attributes:
        values: (..., d) what the old plan says; zero where it says nothing.
        weights: (..., d) how firmly the chunk is held there: 1 where it is committed, 0 where it is free.
        count: (..., 1) committed actions; 0 where nothing is.
    """

    values: Tensor
    weights: Tensor
    count: Tensor

    def spread(self) -> Given:
        """Return the same for one chunk at several states: an axis for them before the last."""
        return Given(self.values[..., None, :], self.weights[..., None, :], self.count[..., None, :])


@dataclass(frozen=True)
class Packing:
    """The layout of one row: condition, values, weights, count.

    Attributes:
        cond_shape: of a row of the condition; None for a denoiser without one.
        size: d.
    """

    cond_shape: tuple[int, ...] | None
    size: int

    @property
    def cond_size(self) -> int:
        """Numbers of a row of the condition."""
        return 0 if self.cond_shape is None else math.prod(self.cond_shape)

    def pack(self, cond: Tensor | None, given: Given) -> Tensor:
        """Return (B, n) for a condition (B, ...) and what is given (B, d)."""
        own = given.values[:, :0] if cond is None else cond.flatten(1)
        return torch.cat([own, *(part.to(own) for part in (given.values, given.weights, given.count))], dim=1)

    def split(self, packed: Tensor) -> tuple[Tensor | None, Given]:
        """Return the condition (B, ...) and what is given (B, d), as views."""
        own, values, weights, count = packed.split([self.cond_size, self.size, self.size, 1], dim=1)
        cond = None if self.cond_shape is None else own.unflatten(1, self.cond_shape)
        return cond, Given(values, weights, count)
