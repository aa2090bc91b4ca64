"""Coefficients of a chain's steps: of the mean and the noise, from the signal before and after each step."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from specpolicy.diffusion.process import TrainingProcess
from specpolicy.errors import SpecpolicyError


class StepTables(NamedTuple):
    """One number per step, noisiest first: tensors that are indexed by steps, or lists of Python floats.

    x0 = from_state y + from_output output
    y_next = state_weight y + x0_weight clip(x0) + raw_x0_weight x0 + sigma xi

    gap_scale: the unit of gaps, sigma, or one where there is no noise and so no gap; gap_weight: x0_weight divided by
    it.
    """

    from_state: Any
    from_output: Any
    state_weight: Any
    x0_weight: Any
    raw_x0_weight: Any
    sigma: Any
    gap_scale: Any
    gap_weight: Any

    def as_lists(self) -> "StepTables":
        """Return Python floats, for one step at a time, without look-ups on a device."""
        return StepTables(*(table.tolist() for table in self))

    def placed(self, device: torch.device, dtype: torch.dtype) -> "StepTables":
        """Return tensors (K, 1, 1) on a device, which broadcast over states (..., H, D)."""
        return StepTables(*(table[:, None, None].to(device, dtype) for table in self))


def make_tables(
    process: TrainingProcess,
    timesteps: Tensor,
    alpha_bar: Tensor,
    alpha_bar_next: Tensor,
    eta: float | None,
    reuse_epsilon: bool,
) -> StepTables:
    """Return (K,) float64 tables of ancestral steps (`eta` None) or DDIM steps, from abar before and after each step.

    Raises:
        SpecpolicyError: an eta beyond what the states' noise allows.
    """
    abar, following = alpha_bar, alpha_bar_next
    beta, zero = 1 - abar / following, torch.zeros_like(abar)
    small_variance = (1 - following) / (1 - abar) * beta
    if eta is None:
        state_weight = (abar / following).sqrt() * (1 - following) / (1 - abar)
        x0_weight, raw_x0_weight = following.sqrt() * beta / (1 - abar), zero
        variance = small_variance if process.variance == "fixed_small" else beta
        # The step from timestep 0 adds no noise, whatever the variance rule (Ho et al. 2020, algorithm 2).
        variance = torch.where((timesteps == 0) & (following == 1), zero, variance)
    else:
        # DDIM (Song et al. 2021, eq. 12): mean = sqrt(abar_next) clip(x0) + sqrt(1 - abar_next - var) epsilon.
        variance = eta**2 * small_variance
        if bool((1 - following - variance < -1e-12).any()):
            raise SpecpolicyError(f"eta={eta} asks for more noise than a state has: use at most 1")
        state_weight = (1 - following - variance).clamp(min=0).sqrt() / (1 - abar).sqrt()
        raw = -state_weight * abar.sqrt()
        clips = process.clip is not None and reuse_epsilon
        x0_weight, raw_x0_weight = following.sqrt() + (zero if clips else raw), raw if clips else zero
    sigma = variance.clamp(min=0).sqrt()
    gap_scale = torch.where(sigma > 0, sigma, torch.ones_like(sigma))
    coefficients = process.coefficients(abar)
    return StepTables(*coefficients, state_weight, x0_weight, raw_x0_weight, sigma, gap_scale, x0_weight / gap_scale)


def transfer_of(state_weight: Tensor) -> Tensor:
    """(K, K) float64: entry i, j is the share of step j's addition left after step i, from the weights (K,)."""
    transfer = torch.eye(len(state_weight), dtype=torch.float64)
    for step in range(1, len(state_weight)):
        transfer[step, :step] = state_weight[step] * transfer[step - 1, :step]
    return transfer
