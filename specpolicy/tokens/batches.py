"""Batches of one size, so that decoders can be compared under the same conditions."""

from collections.abc import Callable

import torch
from torch import Tensor


class EqualBatches:
    """Evaluates a network in batches of `size` rows only, padded with copies of the first row.

    A matrix product may sum in another order when it has another number of rows, which moves logits by a unit in the
    last place. In batches of one size the same kernels run at every call, whatever the other rows are.
    """

    def __init__(self, network: Callable[[Tensor, Tensor, Tensor], Tensor], size: int = 64):
        self.network, self.size = network, size

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Return the network's output for the rows x (N, ...), t (N,), cond (N, ...)."""
        missing = -len(x) % self.size
        x, t, cond = (torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) for part in (x, t, cond))
        parts = zip(x.split(self.size), t.split(self.size), cond.split(self.size), strict=True)
        return torch.cat([self.network(*part) for part in parts])[: len(x) - missing]
