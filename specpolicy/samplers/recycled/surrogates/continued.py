"""Surrogates of a conditioned chain: they are told what is committed, as the network is.

The function g that turns x0 into x0' (see `specpolicy.conditioning`) is fixed before sampling. So is g of a surrogate's
guess, at the same state and step: still a function of the state alone, and exact by the rule of `RecycledDrafter`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specpolicy.conditioning import Continuation, Given
from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.recycled.surrogates.base import Surrogate, Tables


class ContinuedSurrogate:
    """See `Surrogate`: another one's guess x0 as x0', for packed conditions."""

    def __init__(self, surrogate: Surrogate, continuation: Continuation):
        self.surrogate, self.continuation = surrogate, continuation

    def prepare(self, cond: Tensor | None) -> Tensor:
        """See `Surrogate.prepare`: the other's features, then what is given."""
        assert cond is not None
        own, given = self.continuation.packing.split(cond)
        features = self.surrogate.prepare(own)
        parts = [] if features is None else [features.expand(len(cond), -1)]
        return torch.cat([*parts, given.values, given.weights, given.count], dim=1)

    def look_up(self, timesteps: Tensor) -> Tables:
        """See `Surrogate.look_up`: the other's tables, and the timesteps themselves."""
        return (*self.surrogate.look_up(timesteps), timesteps[..., None])

    def at(self, tables: Tables, features: Tensor | None) -> Callable[[Tensor], Tensor]:
        """See `Surrogate.at`."""
        assert features is not None
        *own, timesteps = tables
        size = self.continuation.packing.size
        rest = features.shape[1] - 2 * size - 1
        seen, values, weights, count = features.split([rest, size, size, 1], dim=1)
        predict = self.surrogate.at(tuple(own), seen if rest else None)
        given = Given(values, weights, count).spread()
        return lambda states: self.continuation.x0(predict, states, timesteps[..., 0], given)

    def placed(self, device: torch.device, dtype: torch.dtype) -> "ContinuedSurrogate":
        """See `Surrogate.placed`."""
        return ContinuedSurrogate(self.surrogate.placed(device, dtype), self.continuation)


class ContinuedHostSurrogate:
    """The same for a `HostSurrogate`, whose own steps may be compiled by an engine."""

    def __init__(self, surrogate: Any, continuation: Continuation, chain: GaussianChain):
        self.surrogate, self.continuation, self.timesteps = surrogate, continuation, chain.timesteps

    def prepare(self, cond: Tensor | None) -> tuple[Any, Given]:
        """See `HostSurrogate.prepare`."""
        assert cond is not None
        own, given = self.continuation.packing.split(cond)
        double = Given(given.values.double(), given.weights.double(), given.count)
        return self.surrogate.prepare(own), double

    def __call__(self, states: np.ndarray, steps: np.ndarray, features: Any) -> np.ndarray:
        """See `HostSurrogate`."""
        seen, given = features

        def predict(at: Tensor) -> Tensor:
            return torch.from_numpy(self.surrogate(at.numpy(), steps, seen))

        timesteps = self.timesteps[torch.from_numpy(np.asarray(steps))]
        return self.continuation.x0(predict, torch.from_numpy(states), timesteps, given).numpy()
