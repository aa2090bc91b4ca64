"""The Gaussian chain: what one step of an ancestral diffusion sampler is.

A chain has K levels, k = K-1 (noisiest) to 0. At level k, with the network output at (y, t_k),

    x0     = state_coefficient_k y + output_coefficient_k network(y, t_k)
    mean   = A_k y + B_k clip(x0) + C_k x0
    y_next = mean + sigma_k xi,   xi ~ N(0, I)

C_k is zero except for DDIM chains that keep the network's own epsilon beside a clipped x0 (the default of
diffusers' DDIMScheduler). States are never clipped. Coefficients are computed in float64 on the CPU.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion.path import ChainPath
from specpolicy.diffusion.scheduler_settings import check_settings, scheduler_kind
from specpolicy.diffusion.schedules import cumulative_alphas, inference_timesteps
from specpolicy.errors import SpecpolicyError

PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_large")
# Columns of the per-level tables.
STATE_TO_X0, OUTPUT_TO_X0, STATE, X0, RAW_X0, SIGMA = range(6)


@dataclass(frozen=True)
class TrainingProcess:
    """The forward process a network was trained on: abar (T,) float64, what it predicts, how x0 is clipped."""

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


class GaussianChain:
    """K Gaussian steps from noise to an action chunk; every per-level table is indexed by the level k.

    Build one with `ddpm`, `ddim` or `from_diffusers`. Tables are float64 CPU tensors of length K:
    `timesteps` (int64, what the network sees), `alpha_bar`, `alpha_bar_next` (after the step), `state_weight` A,
    `x0_weight` B, `raw_x0_weight` C, `sigma`.
    """

    def __init__(
        self,
        process: TrainingProcess,
        timesteps: Tensor,
        eta: float | None = None,
        reuse_epsilon: bool = True,
        reached: Tensor | None = None,
    ):
        """Chain over `timesteps` (noisiest first): ancestral DDPM if `eta` is None, else DDIM with that eta.

        reached: the timestep whose noise is left after each step, noisiest first; below zero, none is left. By
            default that of the next step, and none after the last.
        """
        if eta is not None and not 0 <= eta < float("inf"):
            raise SpecpolicyError(f"eta must be zero or positive, got {eta}")
        if not bool(((timesteps >= 0) & (timesteps < process.steps)).all()):
            raise SpecpolicyError(f"a timestep of the chain lies outside of 0 to {process.steps - 1}")
        self.process = process
        self.eta = eta
        self.timesteps = timesteps.flip(0).contiguous()
        abar = process.alpha_bar[self.timesteps]
        if reached is None:
            nxt = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        else:
            after = reached.flip(0)
            nxt = torch.where(after < 0, 1.0, process.alpha_bar[after.clamp(min=0)])
        self.alpha_bar, self.alpha_bar_next = abar, nxt

        # From the network's output to x0: linear in the state and the output for each kind of prediction.
        one = torch.ones_like(abar)
        self.state_coefficient, self.output_coefficient = {
            "epsilon": (abar.rsqrt(), -(1 - abar).sqrt() * abar.rsqrt()),
            "sample": (0 * one, one),
            "v_prediction": (abar.sqrt(), -(1 - abar).sqrt()),
        }[process.prediction]

        small_variance = (1 - nxt) / (1 - abar) * (1 - abar / nxt)
        if eta is None:
            beta = 1 - abar / nxt
            self.state_weight = (abar / nxt).sqrt() * (1 - nxt) / (1 - abar)
            self.x0_weight = nxt.sqrt() * beta / (1 - abar)
            self.raw_x0_weight = 0 * one
            variance = small_variance if process.variance == "fixed_small" else beta
            # The step from timestep 0 adds no noise, whatever the variance rule (Ho et al. 2020, algorithm 2).
            variance = torch.where(self.timesteps == 0, 0 * one, variance)
        else:
            # DDIM (Song et al. 2021, eq. 12): mean = sqrt(abar_next) clip(x0) + sqrt(1 - abar_next - var) epsilon.
            variance = eta**2 * small_variance
            if bool((1 - nxt - variance < -1e-12).any()):
                raise SpecpolicyError(f"eta={eta} asks for more noise than a state has: use at most 1")
            direction = (1 - nxt - variance).clamp(min=0).sqrt() / (1 - abar).sqrt()
            self.state_weight = direction
            raw = -direction * abar.sqrt()
            clips = process.clip is not None and reuse_epsilon
            self.x0_weight = nxt.sqrt() + (0 if clips else raw)
            self.raw_x0_weight = raw if clips else 0 * one
        self.sigma = variance.clamp(min=0).sqrt()
        self._scalars = [tuple(row) for row in torch.stack(self._tables, dim=1).tolist()]
        self._uses_raw = bool((self.raw_x0_weight != 0).any())
        self._on_device: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._paths: dict[tuple[torch.device, torch.dtype], ChainPath] = {}
        self._derived: dict[tuple[Any, ...], GaussianChain] = {}

    # -- construction ----------------------------------------------------------------------------------------

    @classmethod
    def ddpm(
        cls,
        train_steps: int = 100,
        steps: int | None = None,
        beta_schedule: str = "squaredcos_cap_v2",
        variance: str = "fixed_small",
        prediction: str = "epsilon",
        clip: float | None = 1.0,
        spacing: str = "leading",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        offset: int = 0,
    ) -> "GaussianChain":
        """Ancestral DDPM chain (Ho et al. 2020) of `steps` of the `train_steps` timesteps.

        With fewer steps than training steps the previous timestep is the strided one, as in current diffusers.
        """
        abar = cumulative_alphas(train_steps, beta_schedule, beta_start, beta_end)
        process = TrainingProcess(abar, prediction, clip, variance, spacing, offset)
        return cls(process, inference_timesteps(train_steps, steps or train_steps, spacing, offset))

    @classmethod
    def from_diffusers(cls, scheduler: Any) -> "GaussianChain":
        """The chain of a diffusers `DDPMScheduler`, or of a `DDIMScheduler` taken with eta = 1.

        Uses the scheduler's inference timesteps if `set_timesteps` was called, else all training timesteps.
        For another eta: `GaussianChain.from_diffusers(scheduler).with_ddim(steps, eta)`.
        """
        config, kind = scheduler.config, scheduler_kind(type(scheduler).__name__)
        # Whatever its betas were made of: they are taken as they are.
        variance = check_settings(kind, {**config, "trained_betas": None})
        process = TrainingProcess(
            scheduler.alphas_cumprod.double().cpu(),
            config.prediction_type,
            config.get("clip_sample_range", 1.0) if config.clip_sample else None,
            variance,
            config.get("timestep_spacing", "leading"),
            config.get("steps_offset", 0),
        )
        timesteps = torch.as_tensor(scheduler.timesteps).cpu().long()
        if kind == "DDPM":
            return cls(process, timesteps)
        steps = scheduler.num_inference_steps or len(timesteps)
        return cls(process, timesteps, 1.0, reached=_ddim_reached(timesteps, process.steps, steps))

    def strided(self, steps: int, spacing: str | None = None) -> "GaussianChain":
        """A DDPM chain of the same training process with another number of steps: another law. Made once."""
        return self._derive(steps, spacing)

    def with_ddim(
        self, steps: int, eta: float = 0.0, spacing: str | None = None, reuse_epsilon: bool = True
    ) -> "GaussianChain":
        """A DDIM chain (Song et al. 2021) of the same training process.

        `reuse_epsilon` keeps the network's epsilon where x0 was clipped, as diffusers does by default;
        False recomputes epsilon from the clipped x0. Like diffusers', a step from timestep t leaves the noise of
        t - T // K, whatever timestep the next step is given: with trailing or linspace spacing the two may differ.
        Made once.
        """
        return self._derive(steps, spacing, eta, reuse_epsilon)

    def _derive(
        self, steps: int, spacing: str | None, eta: float | None = None, reuse_epsilon: bool = True
    ) -> "GaussianChain":
        key = (steps, spacing, eta, reuse_epsilon)
        if key not in self._derived:
            with torch.inference_mode(False):  # it is kept, and may be trained on later
                process = self._with_spacing(spacing)
                timesteps = inference_timesteps(process.steps, steps, process.spacing, process.offset)
                reached = None if eta is None else _ddim_reached(timesteps, process.steps, steps)
                self._derived[key] = type(self)(process, timesteps, eta, reuse_epsilon, reached)
        return self._derived[key]

    def _with_spacing(self, spacing: str | None) -> TrainingProcess:
        return dataclasses.replace(self.process, spacing=spacing or self.process.spacing)

    # -- use -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of steps K."""
        return len(self.timesteps)

    def __repr__(self) -> str:
        kind = "ddpm" if self.eta is None else f"ddim(eta={self.eta:g})"
        process = self.process
        return (
            f"GaussianChain({kind}, {len(self)}/{process.steps} steps, {process.prediction}, "
            f"{process.variance}, clip={process.clip})"
        )

    @property
    def _tables(self) -> tuple[Tensor, ...]:
        return (
            self.state_coefficient,
            self.output_coefficient,
            self.state_weight,
            self.x0_weight,
            self.raw_x0_weight,
            self.sigma,
        )

    def x0(self, output: Tensor, state: Tensor, level: int | Tensor) -> Tensor:
        """Unclipped x0 (N, H, D) from the network's `output` at `state`; `level` is one k or (N,) of them."""
        if self.process.prediction == "sample":
            return output
        from_state, from_output = self._pick(level, state, STATE_TO_X0, OUTPUT_TO_X0)
        return from_state * state + from_output * output

    def mean(self, x0: Tensor, state: Tensor, level: int | Tensor) -> Tensor:
        """Mean (N, H, D) of the next state, given the unclipped `x0`; the clip is applied here."""
        state_weight, x0_weight, raw_weight = self._pick(level, state, STATE, X0, RAW_X0)
        mean = state_weight * state + x0_weight * self.clip(x0)
        return mean + raw_weight * x0 if self._uses_raw else mean

    def path(self, device: torch.device, dtype: torch.dtype = torch.float32) -> ChainPath:
        """The steps in the order they are walked, as tensors on a device; made once."""
        key = (device, dtype)
        if key not in self._paths:
            with torch.inference_mode(False):
                self._paths[key] = ChainPath(self, device, dtype)
        return self._paths[key]

    def noise_scale(self, level: int | Tensor, like: Tensor) -> float | Tensor:
        """sigma at `level`: a float for one level, (N, 1, ..., 1) for many."""
        return self._pick(level, like, SIGMA)[0]

    def clip(self, x0: Tensor) -> Tensor:
        """x0 clipped as the training process says."""
        bound = self.process.clip
        return x0 if bound is None else x0.clamp(-bound, bound)

    def _pick(self, level: int | Tensor, like: Tensor, *columns: int) -> tuple:
        """The table columns at `level`: Python floats for one level, (N, 1, ..., 1) tensors for many."""
        if isinstance(level, int):
            row = self._scalars[level]
            return tuple(row[column] for column in columns)
        key = (like.device, like.dtype)
        if key not in self._on_device:
            self._on_device[key] = torch.stack(self._tables).to(*key)
        rows = self._on_device[key][list(columns)][:, level]
        return tuple(rows.reshape(len(columns), -1, *([1] * (like.dim() - 1))))


def _ddim_reached(timesteps: Tensor, train_steps: int, steps: int) -> Tensor:
    """The timesteps that diffusers' `DDIMScheduler.step` walks to from `timesteps`."""
    return timesteps - train_steps // steps


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecpolicyError(f"unknown {what} '{value}': use one of {', '.join(choices)}")
