"""The engine that runs PyTorch as it is."""

import torch
from torch import Tensor

from specpolicy.engines.base import Engine, Workload
from specpolicy.engines.precision import lower_precision
from specpolicy.engines.split import in_parts


class EagerEngine(Engine):
    """Calls the network itself. Every other engine is compared with this one."""

    name = "eager"

    def __init__(self, workload: Workload):
        super().__init__(workload)
        self._whole = lower_precision(workload)
        self._network = in_parts(self._whole, workload) or self._whole

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Engine`. Where a gradient by x is wanted, it can be taken."""
        if x.requires_grad and torch.is_grad_enabled():
            return self._whole(x, t, cond)  # what a network in two parts remembers has no gradients
        with torch.inference_mode():
            return self._network(x, t, cond)
