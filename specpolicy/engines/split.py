"""Networks in two parts: features of timestep and condition are computed outside the engine, and cached."""

from typing import Any, Protocol

import torch
from torch import Tensor

from specpolicy.engines.base import Workload


class SplitNetwork(Protocol):
    """A denoiser (x (N, H, D), features (N, F)) -> (N, H, D), features being a sum of two parts.

    A network that can be split has a method `split_denoiser(horizon, rows)`. It returns this form, arranged for one row
    or for several, or None.
    """

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F)."""
        ...

    def condition_features(self, cond: Tensor | None) -> Tensor:
        """(M, ...) -> (M, F), or (1, F) without a condition."""
        ...

    def __call__(self, x: Tensor, features: Tensor) -> Tensor: ...


def split_network(workload: Workload, rows: int) -> Any:
    """Return the workload's network in two parts (`SplitNetwork`, a module), arranged for this number of rows, or
    None."""
    split = getattr(workload.denoiser, "split_denoiser", None)
    return None if split is None else split(workload.chunk_shape[0], rows)


class Features:
    """Features for a network in two parts: of whole timesteps from a table, of a chunk's condition computed once."""

    def __init__(self, network: SplitNetwork, workload: Workload):
        self._network = network
        self._table = network.time_features(torch.arange(workload.train_steps, device=workload.device))
        self.size = self._table.shape[1]
        self._seen: Tensor | None = None
        self._part = network.condition_features(None) if workload.cond_shape is None else None

    @torch.inference_mode()
    def write(self, t: Tensor, cond: Tensor | None, out: Tensor) -> None:
        """Write the features of timesteps (N,) and conditions (N, ...) into `out` (N, F)."""
        if t.is_floating_point():
            out.copy_(self._network.time_features(t))
        else:
            torch.index_select(self._table, 0, t, out=out)
        out += self._of_condition(cond)

    def _of_condition(self, cond: Tensor | None) -> Tensor:
        """Return (N, F), or (1, F) for rows that share a condition. The condition is compared with the previous one by
        value."""
        if cond is not None:
            first = cond[:1]
            if len(cond) > 1 and cond.stride(0) != 0 and not torch.equal(cond, first.expand_as(cond)):
                return self._network.condition_features(cond)
            if self._seen is None or not torch.equal(self._seen, first):
                self._seen, self._part = first.clone(), self._network.condition_features(first)
        assert self._part is not None
        return self._part
