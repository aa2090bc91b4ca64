"""Networks that compute in bfloat16. Such a network is another one than in float32, with a nearby distribution."""

import copy

import torch
from torch import Tensor, nn

from specpolicy.engines.base import Denoiser, Workload
from specpolicy.errors import SpecpolicyError


class Bfloat16(nn.Module):
    """A copy of a network whose convolutions and matrix products are in bfloat16, inputs and outputs in float32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(network)
        # Only the weights that autocast would convert in every call. Buffers such as frequencies stay exact.
        for module in self.network.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d):
                module.to(torch.bfloat16)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Denoiser`."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x, t, cond).to(x.dtype)


def lower_precision(workload: Workload) -> Denoiser:
    """Return the network in the workload's precision."""
    if workload.precision == "float32":
        return workload.denoiser
    if not isinstance(workload.denoiser, nn.Module):
        raise SpecpolicyError("precision bfloat16 needs a torch.nn.Module as denoiser")
    return Bfloat16(workload.denoiser)
