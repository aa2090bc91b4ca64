"""The engine that runs PyTorch unchanged."""

import torch
from torch import Tensor

from specpolicy.engines.base import Engine, Workload
from specpolicy.engines.precision import lower_precision


class EagerEngine(Engine):
    """Calls the network itself. Every other engine is compared with this one."""

    name = "eager"

    def __init__(self, workload: Workload):
        super().__init__(workload)
        self._network = lower_precision(workload)

    @torch.inference_mode()
    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Engine`."""
        return self._network(x, t, cond)
