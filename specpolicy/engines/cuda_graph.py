"""CUDA graphs: a call of the network is one launch instead of some hundred, which dominate the time of a small
network."""

import torch
from torch import Tensor

from specpolicy.engines.base import Buffers, Denoiser, PaddedEngine, Runner, Workload, row_sizes
from specpolicy.engines.capture import CudaCapture, warm_up
from specpolicy.engines.precision import lower_precision
from specpolicy.errors import SpecpolicyError


class CudaGraphEngine(PaddedEngine):
    """One captured graph per number of rows, at powers of two: on a GPU a few more rows cost almost nothing."""

    name = "cuda_graph"

    def __init__(self, workload: Workload, network: Denoiser | None = None):
        """Capture the workload's network, or `network` in its place, such as a compiled form."""
        super().__init__(workload, row_sizes(workload.max_rows, fine=False))
        if workload.device.type != "cuda":
            raise SpecpolicyError(
                f"engine 'cuda_graph' needs a CUDA device, the policy is on {workload.device}: "
                "use device=cuda, or engine openvino or eager"
            )
        self._network = lower_precision(workload) if network is None else network
        self.capture: CudaCapture = CudaCapture(self._network, workload.device)

    def make_runner(self, size: int) -> Runner:
        """See `PaddedEngine.make_runner`."""
        buffers = Buffers(self.workload, size)
        device = self.workload.device
        warm_up(lambda: self._network(buffers.x, buffers.t, buffers.cond), device)
        graph = torch.cuda.CUDAGraph()
        # Capture and replay use the current device, which need not be the policy's.
        with torch.cuda.device(device), torch.cuda.graph(graph, pool=self.capture.pool):
            output = self._network(buffers.x, buffers.t, buffers.cond)

        def run(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            rows = buffers.fill(x, t, cond)
            with torch.cuda.device(device):
                graph.replay()
            return output[:rows]

        return run
