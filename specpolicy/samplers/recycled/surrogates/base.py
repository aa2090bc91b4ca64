"""The surrogate protocol: a cheap function, fixed before sampling, in place of the network's x0."""

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError

Tables = tuple[Tensor, ...]  # values that depend on timesteps alone, (..., n) each


class Surrogate(Protocol):
    """Guesses x0 at many states of a chunk at once, each from its own state, timestep and condition alone."""

    def prepare(self, cond: Tensor | None) -> Tensor | None:
        """Prepare the condition, once per chunk: (B, F), or None."""
        ...

    def look_up(self, timesteps: Tensor) -> Tables:
        """Prepare `timesteps` (...), once per chunk; the tables are indexed like them."""
        ...

    def at(self, tables: Tables, features: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Return the guess at the steps of some tables, (W, n) each or (B, W, n).

        It is a function from states (B, W, H*D) to x0 (B, W, H*D), unclipped. Parts that depend on steps and condition
        alone are computed here, because a round is drafted several times over.
        """
        ...

    def placed(self, device: torch.device, dtype: torch.dtype) -> Any:
        """Return the surrogate on a device: itself if it is there, else a copy, made once. Samplers share a
        calibration, so it is never moved."""
        ...


class SurrogateModule(nn.Module):
    """A surrogate whose numbers are the parameters of a module."""

    basis: Tensor
    cond_dim: int

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[tuple[torch.device, torch.dtype], Any] = {}

    def placed(self, device: torch.device, dtype: torch.dtype) -> Any:
        """See `Surrogate.placed`."""
        if (self.basis.device, self.basis.dtype) == (device, dtype):
            return self
        if (device, dtype) not in self._copies:
            with torch.inference_mode(False), torch.no_grad():
                self._copies[device, dtype] = copy.deepcopy(self).to(device, dtype)
        return self._copies[device, dtype]

    def flat(self, cond: Tensor | None) -> Tensor:
        """Return the condition as (B, cond_dim), (1, 0) where there is none.

        Raises:
            SpecpolicyError: its size is not the one this surrogate was made for.
        """
        if not self.cond_dim:
            return self.basis.new_zeros(1, 0)
        size = 0 if cond is None else cond.flatten(1).shape[1]
        if cond is None or size != self.cond_dim:
            raise SpecpolicyError(
                f"this calibration is for conditions of {self.cond_dim} numbers, cond has {size}: give `cond`, or run "
                "`specpolicy calibrate` for this policy"
            )
        return cond.flatten(1).to(self.basis)
