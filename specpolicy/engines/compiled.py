"""The engine of torch.compile, with CUDA graphs where there is a GPU."""

import torch
from torch import Tensor

from specpolicy.engines.base import Denoiser, Engine, Workload
from specpolicy.engines.cuda_graph import CudaGraphEngine
from specpolicy.engines.precision import lower_precision
from specpolicy.engines.split import in_parts


class CompiledEngine(Engine):
    """On CUDA, kernels fused by torch.compile and captured for a few numbers of rows. Elsewhere, the network is
    compiled for one row and for any number of rows. Needs a C++ compiler; compilation takes a minute or more."""

    name = "compile"

    def __init__(self, workload: Workload):
        super().__init__(workload)
        network = lower_precision(workload)
        compiled: Denoiser = torch.compile(network, dynamic=True)
        self._compiled = compiled
        self._graphs: CudaGraphEngine | None = None
        self._parts: Denoiser | None = None
        if workload.device.type == "cuda":
            self._graphs = CudaGraphEngine(workload, network=compiled)
            self.sizes, self.capture = self._graphs.sizes, self._graphs.capture
        else:
            self._parts = in_parts(network, workload, lambda split: torch.compile(split, dynamic=True))

    @torch.inference_mode()
    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Engine`."""
        if self._graphs is not None:
            return self._graphs(x, t, cond)
        if self._parts is not None:
            return self._parts(x.contiguous(), t, cond)
        # Other strides, such as those of an expanded condition, would cause another compilation.
        return self._compiled(x.contiguous(), t.contiguous(), None if cond is None else cond.contiguous())
