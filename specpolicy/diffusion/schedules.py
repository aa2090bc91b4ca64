"""Noise schedules of the training process and the timesteps that a chain visits.

Everything here is float64 or int64 on the CPU. The names of schedules and spacings are those of diffusers.
"""

import math

import numpy as np
import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing", "linspace")


def cumulative_alphas(train_steps: int, beta_schedule: str, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Return abar (train_steps,): the share of signal variance left at each training timestep.

    `squaredcos_cap_v2` is the cosine schedule of Nichol and Dhariwal 2021 with each beta capped at 0.999;
    it ignores `beta_start` and `beta_end`.
    """
    if train_steps < 1:
        raise SpecpolicyError(f"train_steps must be at least 1, got {train_steps}")
    if beta_schedule == "linear":
        betas = torch.linspace(beta_start, beta_end, train_steps, dtype=torch.float64)
    elif beta_schedule == "scaled_linear":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, train_steps, dtype=torch.float64) ** 2
    elif beta_schedule == "squaredcos_cap_v2":
        edges = torch.arange(train_steps + 1, dtype=torch.float64) / train_steps
        signal = torch.cos((edges + 0.008) / 1.008 * (math.pi / 2)) ** 2
        betas = (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
    else:
        raise SpecpolicyError(f"unknown beta_schedule '{beta_schedule}': use one of {', '.join(BETA_SCHEDULES)}")
    return torch.cumprod(1 - betas, dim=0)


def inference_timesteps(train_steps: int, steps: int, spacing: str = "leading", offset: int = 0) -> Tensor:
    """Return the `steps` timesteps a chain visits, noisiest first (Lin et al. 2024, table 2).

    leading: 0, r, 2r, ... with r = train_steps // steps, shifted by `offset` (the diffusers default);
    trailing: counted from the noisiest timestep down; linspace: both ends included. The formulas are diffusers', term
    by term: another order of the same operations rounds some halves to the other side.
    """
    if not 1 <= steps <= train_steps:
        raise SpecpolicyError(f"steps must lie between 1 and train_steps={train_steps}, got {steps}")
    if spacing == "leading":
        timesteps = np.arange(steps - 1, -1, -1) * (train_steps // steps) + offset
    elif spacing == "trailing":
        timesteps = np.round(np.arange(train_steps, 0, -train_steps / steps)).astype(np.int64) - 1
        if len(timesteps) != steps:  # arange has rounded: diffusers then takes a step from timestep -1
            raise SpecpolicyError(
                f"spacing=trailing makes {len(timesteps)} timesteps of steps={steps} (train_steps={train_steps}), in "
                "diffusers, too: choose another number of steps"
            )
    elif spacing == "linspace":
        timesteps = np.linspace(0, train_steps - 1, steps).round().astype(np.int64)[::-1]
    else:
        raise SpecpolicyError(f"unknown spacing '{spacing}': use one of {', '.join(SPACINGS)}")
    if timesteps.min() < 0 or timesteps.max() >= train_steps:
        raise SpecpolicyError(
            f"offset={offset} moves the timesteps out of 0 to {train_steps - 1} (train_steps={train_steps}): "
            "choose another"
        )
    return torch.from_numpy(timesteps.astype(np.int64).copy())
