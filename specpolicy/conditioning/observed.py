"""Denoisers that take the observation in another way than by their condition input, wrapped to look like the others.

A sampler calls (x, t, cond). Policies that inpaint, or that condition locally, are wrapped to fit.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from specpolicy.diffusion import GaussianChain, TrainingProcess


class Inpainting(nn.Module):
    """A denoiser over (action, observation) vectors, whose first frames of observations are known."""

    to_x0: Tensor

    def __init__(self, network: nn.Module, chain: GaussianChain, action_dim: int):
        """Chunks are (N, H, action_dim + observation dimension)."""
        super().__init__()
        self.network = network
        self.action_dim = action_dim
        self.register_buffer("to_x0", x0_table(chain.process), persistent=False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """x (N, H, D), t (N,), cond (N, To, observation dimension): the known values; None: no value is known."""
        if cond is None:
            return self.network(x, t)
        pad = (self.action_dim, 0, 0, x.shape[1] - cond.shape[1])
        values = nn.functional.pad(cond.to(x.dtype), pad)
        known = nn.functional.pad(torch.ones_like(cond, dtype=torch.bool), pad)
        return paint_in(self.network, x, t, values, known, self.to_x0)


def paint_in(network: Callable, x: Tensor, t: Tensor, values: Tensor, known: Tensor, to_x0: Tensor) -> Tensor:
    """Return the output (N, H, D) of `network(x, t)` where x has the `values` at its `known` coordinates.

    The original sampler overwrites those coordinates of its state before each network call. Doing it here leaves the
    distribution of the others unchanged, because they depend on the known ones through the network alone. The output at
    the known coordinates is the one that predicts their values, so a draft never differs from its target there.
    `to_x0`: see `x0_table`.
    """
    output = network(torch.where(known, values, x), t)
    from_state, from_output = to_x0[:, t].to(x.dtype)[..., None, None]
    return torch.where(known, (values - from_state * x) / from_output, output)


def x0_table(process: TrainingProcess) -> Tensor:
    """(2, T) by timestep: x0 = table[0] state + table[1] output."""
    return torch.stack(process.x0_coefficients(torch.arange(process.steps))).float()


class LocalCondition(nn.Module):
    """A U-Net whose condition is a sequence beside the actions: observations for the first frames, then zeros."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (N, H, D), t (N,), cond (N, To, observation dimension)."""
        local = torch.nn.functional.pad(cond, (0, 0, 0, x.shape[1] - cond.shape[1]))
        return self.network(x, t, None, local)
