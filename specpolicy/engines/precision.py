"""Networks that compute in bfloat16. Such a network is another one than in float32, with a nearby distribution."""

import copy
from typing import Any

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

    @property
    def costly_condition(self) -> bool:
        """See `DiffusionTransformer`."""
        return bool(getattr(self.network, "costly_condition", False))

    def split_denoiser(self, horizon: int, rows: int) -> "SplitBfloat16 | None":
        """Return the same function in two parts; None if the network cannot be split."""
        network: Any = self.network
        split = network.split_denoiser(horizon, rows)
        return None if split is None else SplitBfloat16(split)


class SplitBfloat16(nn.Module):
    """A network in two parts, see `SplitNetwork`, that computes in bfloat16; features are float32."""

    def __init__(self, split: Any):
        super().__init__()
        self.split = split

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F)."""
        with torch.autocast(timestep.device.type, torch.bfloat16):
            return self.split.time_features(timestep).float()

    def condition_features(self, cond: Tensor) -> Tensor:
        """(M, ...) -> (M, F)."""
        with torch.autocast(cond.device.type, torch.bfloat16):
            return self.split.condition_features(cond).float()

    def forward(self, sample: Tensor, features: Tensor) -> Tensor:
        """Chunks (N, H, D) and features (N, F) -> (N, H, D)."""
        with torch.autocast(sample.device.type, torch.bfloat16):
            return self.split(sample, features).to(sample.dtype)


def lower_precision(workload: Workload) -> Denoiser:
    """Return the network in the workload's precision."""
    if workload.precision == "float32":
        return workload.denoiser
    if not isinstance(workload.denoiser, nn.Module):
        raise SpecpolicyError("precision bfloat16 needs a torch.nn.Module as denoiser")
    return Bfloat16(workload.denoiser)
