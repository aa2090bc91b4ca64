"""Ways to tell a denoiser the observation other than by its condition input, made to look like that input.

A sampler sees (x, t, cond). Policies that inpaint, or that condition locally, are wrapped so that they fit.
"""

import torch
from torch import Tensor, nn

from specpolicy.diffusion import GaussianChain


class Inpainting(nn.Module):
    """A denoiser over (action, observation) vectors, whose first frames of observations are known.

    The original sampler overwrites the known coordinates of the state before each network call. Here `forward`
    does: the network sees the known values, and the action coordinates of a state follow the same law, because they
    depend on the known coordinates through the network alone. The output there is the one that predicts the known
    values, so that those coordinates never tell a draft from its target.
    """

    to_x0: Tensor

    def __init__(self, network: nn.Module, chain: GaussianChain, action_dim: int):
        """Chunks are (N, H, action_dim + observation dimension)."""
        super().__init__()
        self.network = network
        self.action_dim = action_dim
        every = GaussianChain(chain.process, torch.arange(chain.process.steps - 1, -1, -1))  # level k is timestep k
        table = torch.stack([every.state_coefficient, every.output_coefficient]).float()
        self.register_buffer("to_x0", table, persistent=False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """x (N, H, D), t (N,), cond (N, To, observation dimension): the known values; None: nothing is known."""
        if cond is None:
            return self.network(x, t)
        known = (slice(None), slice(cond.shape[1]), slice(self.action_dim, None))
        filled = x.clone()
        filled[known] = cond
        output = self.network(filled, t).clone()
        from_state, from_output = self.to_x0[:, t].to(x.dtype)[..., None, None]
        output[known] = (cond - from_state * x[known]) / from_output
        return output


class LocalCondition(nn.Module):
    """A U-Net whose condition is a sequence beside the actions: observations for the first frames, then zeros."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (N, H, D), t (N,), cond (N, To, observation dimension)."""
        local = torch.nn.functional.pad(cond, (0, 0, 0, x.shape[1] - cond.shape[1]))
        return self.network(x, t, None, local)
