"""The training process: how chunks were noised in training, and how to read the network's output."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.diffusion.schedules import inference_timesteps
from specpolicy.errors import SpecpolicyError

LEAST_SIGNAL = 1e-8  # for what divides by abar, which is 0 in the noise that a flow begins with; drafts only
PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_large")


@dataclass(frozen=True)
class TrainingProcess:
    """The forward process of training: `alpha_bar` (T,) float64, the kind of prediction, the clipping of x0. That of
    flow matching is `FlowProcess`.

    `variance`, `spacing` and `offset` are defaults for chains made from it. `kind` is the name of its ancestral chains.
    """

    kind: ClassVar[str] = "ddpm"

    alpha_bar: Tensor
    prediction: str = "epsilon"
    clip: float | None = 1.0
    variance: str = "fixed_small"
    spacing: str = "leading"
    offset: int = 0

    def __post_init__(self) -> None:
        if self.prediction == "v":
            object.__setattr__(self, "prediction", "v_prediction")
        _check_choice("prediction", self.prediction, PREDICTIONS)
        _check_choice("variance", self.variance, VARIANCES)
        if self.clip is not None and not self.clip > 0:
            raise SpecpolicyError(f"clip must be positive or None, got {self.clip}")
        if not bool(((self.alpha_bar > 0) & (self.alpha_bar < 1)).all()):
            raise SpecpolicyError("each step of the training process must leave a part of the signal: check its betas")

    @property
    def steps(self) -> int:
        """Number of training timesteps T."""
        return len(self.alpha_bar)

    def x0_coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return (c, e), float64 in the shape of `timesteps`, whole numbers: x0 = c state + e output, unclipped."""
        return self.coefficients(self.alpha_bar[timesteps])

    def coefficients(self, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Return (c, e) in the shape of `alpha_bar`: x0 = c state + e output is linear for each kind of prediction."""
        if self.prediction == "epsilon":
            return alpha_bar.rsqrt(), -(1 - alpha_bar).sqrt() * alpha_bar.rsqrt()
        if self.prediction == "sample":
            return alpha_bar.new_zeros(alpha_bar.shape), alpha_bar.new_ones(alpha_bar.shape)
        return alpha_bar.sqrt(), -(1 - alpha_bar).sqrt()

    def visited(self, steps: int) -> Tensor:
        """Return the timesteps (K,) that a chain of `steps` visits, noisiest first.

        Raises:
            SpecpolicyError: more steps than training had, or a number that the spacing does not allow.
        """
        return inference_timesteps(self.steps, steps, self.spacing, self.offset)

    def left(self, alpha_bar: Tensor) -> Tensor:
        """Return abar after each step of a chain (K,): that of the next step, and one after the last."""
        return torch.cat([alpha_bar[1:], alpha_bar.new_ones(1)])

    def left_by_ddim(self, timesteps: Tensor, steps: int) -> Tensor:
        """Return abar after each step as diffusers' `DDIMScheduler.step` walks: to the timestep t - T // K; below zero,
        to 1."""
        reached = timesteps - self.steps // steps
        return torch.where(reached < 0, 1.0, self.alpha_bar[reached.clamp(min=0)])

    def clipped(self, x0: Tensor) -> Tensor:
        """Return x0 clipped to the bounds of this process."""
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecpolicyError(f"unknown {what} '{value}': use one of {', '.join(choices)}")
