"""Helpers shared by several forms of a round."""

import numpy as np
import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import name_step, upload
from specpolicy.samplers.speculative.coupling import TINY

Steps = Tensor | slice  # steps: numbers (B, W), or a range that all rows share


def along_gaps(difference: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return (delta, S), each (B, W), from (m_q - m_p) / s and z, both (B, W, H, D); see `coupling`."""
    dtype = torch.float64 if difference.device.type != "mps" else torch.float32
    difference, noise = difference.flatten(2).to(dtype), noise.flatten(2).to(dtype)
    delta = torch.linalg.vector_norm(difference, dim=-1)
    return delta, (difference * noise).sum(-1) / delta.clamp(min=TINY)


def cells(steps: Steps) -> tuple[slice | Tensor, slice | Tensor]:
    """Return an index into a table (B, K, ...) for each row's entries (B, W, ...) at its steps, a
    `BatchWindow.index`."""
    if isinstance(steps, slice):
        return slice(None), steps
    return torch.arange(len(steps), device=steps.device)[:, None], steps


def pick(table: Tensor, place: np.ndarray) -> Tensor:
    """Return (B, ...) of a table (B, N, ...): each row's entry at `place` (B,), on the host."""
    return table[torch.arange(len(table), device=table.device), upload(torch.from_numpy(place), table.device)]


def not_finite(chain: GaussianChain, step: int, given: bool) -> SpecpolicyError:
    """Return the error for a value at a step that is not finite; `given`: the network's input was finite."""
    where = name_step(chain.timesteps, step)
    if not given:  # the input of the network was already bad
        return SpecpolicyError(f"the draft of {where} is not finite: check the draft model")
    return SpecpolicyError(
        f"the denoiser returned a value that is not finite at {where}: check the weights and the observation"
    )
