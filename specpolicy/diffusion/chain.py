"""The Gaussian chain: the steps of an ancestral diffusion sampler.

A chain has K steps, n = 0 (the noisiest) to K-1 (the last). At step n, with the network output at (y, t_n),

    x0     = from_state_n y + from_output_n network(y, t_n)
    mean   = state_weight_n y + x0_weight_n clip(x0) + raw_x0_weight_n x0
    y_next = mean + sigma_n xi,   xi ~ N(0, I)

The raw weight is zero except for DDIM chains that keep the network's own epsilon beside a clipped x0 (the default of
diffusers' DDIMScheduler). States are never clipped. Coefficients are computed in float64 on the CPU.
"""

import dataclasses
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion.flow import FlowProcess
from specpolicy.diffusion.process import TrainingProcess
from specpolicy.diffusion.scheduler_settings import check_settings, scheduler_kind
from specpolicy.diffusion.schedules import cumulative_alphas, inference_timesteps
from specpolicy.diffusion.steps import StepTables, make_tables, transfer_of
from specpolicy.errors import SpecpolicyError

# One step, a range that all rows of a batch share, or numbers of any shape. A range costs a fraction of the cost of
# gathering, and one step costs nothing.
Step = int | slice | Tensor


class GaussianChain:
    """K Gaussian steps from noise to an action chunk, the noisiest first.

    Build one with `ddpm`, `from_diffusers` or `from_flow`. Tables are float64 CPU tensors of length K, by step:
    `timesteps` (int64, the network's input, in diffusers' order), `alpha_bar`, `alpha_bar_next` (after the step),
    `state_weight`, `x0_weight`, `raw_x0_weight`, `sigma`, and `gap_scale`, the unit of gaps: sigma, or one where a step
    has no noise.

    The methods take states, x0 and noises (..., H, D) of any device and number format, and the step of each as an int,
    a slice or a tensor (...). One contract holds about clipping: `mean` and `drift` take the result of `x0`.
    """

    def __init__(
        self,
        process: TrainingProcess,
        timesteps: Tensor,
        eta: float | None = None,
        reuse_epsilon: bool = True,
        *,
        alpha_bar: Tensor | None = None,
        alpha_bar_next: Tensor | None = None,
    ):
        """Make a chain over `timesteps` (K,), noisiest first: ancestral DDPM if `eta` is None, else DDIM with that eta.

        Args:
            process: the training process.
            timesteps: (K,) the network's inputs, noisiest first.
            eta: None: ancestral DDPM.
            reuse_epsilon: of DDIM: keep the network's own epsilon beside a clipped x0.
            alpha_bar: (K,) the share of signal variance at each step, by default the process's at `timesteps`.
                Fractional timesteps, which reach the network unchanged, need it.
            alpha_bar_next: (K,) the share after each step, by default that of the next step, and one after the last.

        Raises:
            SpecpolicyError: timesteps or an eta that the process has no steps for.
        """
        if eta is not None and not 0 <= eta < float("inf"):
            raise SpecpolicyError(f"eta must be zero or positive, got {eta}")
        if alpha_bar is None:
            if timesteps.is_floating_point():
                raise SpecpolicyError("timesteps that are no whole numbers need alpha_bar=, the signal at each of them")
            if not bool(((timesteps >= 0) & (timesteps < process.steps)).all()):
                raise SpecpolicyError(f"a timestep of the chain lies outside of 0 to {process.steps - 1}")
            alpha_bar = process.alpha_bar[timesteps]
        if alpha_bar_next is None:
            alpha_bar_next = process.left(alpha_bar)
        self.process = process
        self.eta = eta
        self.timesteps = timesteps.contiguous()
        self.alpha_bar, self.alpha_bar_next = alpha_bar, alpha_bar_next
        self.tables = make_tables(process, timesteps, alpha_bar, alpha_bar_next, eta, reuse_epsilon)
        self.state_weight, self.x0_weight = self.tables.state_weight, self.tables.x0_weight
        self.raw_x0_weight = self.tables.raw_x0_weight
        self.sigma, self.gap_scale = self.tables.sigma, self.tables.gap_scale
        self.uses_raw = bool((self.raw_x0_weight != 0).any())
        self._lists = self.tables.as_lists()
        self._placed: dict[tuple[torch.device, torch.dtype], StepTables] = {}
        self._by_device: dict[torch.device, tuple[Tensor, Tensor]] = {}
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
        """Return the ancestral DDPM chain (Ho et al. 2020) of `steps` of the `train_steps` timesteps.

        With fewer steps than training steps the previous timestep is the strided one, as in current diffusers.

        Raises:
            SpecpolicyError: an option that is none, or out of its range.
        """
        for name, value in (("train_steps", train_steps), ("steps", steps), ("offset", offset)):
            least = 0 if name == "offset" else 1
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
                raise SpecpolicyError(f"{name}={value!r}: expected a whole number, {least} or more")
        abar = cumulative_alphas(train_steps, beta_schedule, beta_start, beta_end)
        process = TrainingProcess(abar, prediction, clip, variance, spacing, offset)
        return cls(process, inference_timesteps(train_steps, train_steps if steps is None else steps, spacing, offset))

    @classmethod
    def from_diffusers(cls, scheduler: Any) -> "GaussianChain":
        """Return the chain of a diffusers `DDPMScheduler`, or of a `DDIMScheduler` taken with eta = 1.

        Uses the scheduler's inference timesteps if `set_timesteps` was called, else all training timesteps. For another
        eta: `GaussianChain.from_diffusers(scheduler).with_ddim(steps, eta)`.
        """
        if not hasattr(scheduler, "config") or not hasattr(scheduler, "alphas_cumprod"):
            raise SpecpolicyError(f"{type(scheduler).__name__} is no scheduler of diffusers: give a DDPM or DDIM one")
        config, kind = scheduler.config, scheduler_kind(type(scheduler).__name__)
        # Any betas are accepted as they are.
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
        return cls(process, timesteps, 1.0, alpha_bar_next=process.left_by_ddim(timesteps, steps))

    @classmethod
    def from_flow(
        cls,
        times: int | Sequence[float] | Tensor,
        noise_at: float = 0.0,
        sigma_min: float = 0.0,
        clip: float | None = None,
    ) -> "GaussianChain":
        """Return the ancestral chain of a flow model, whose network predicts a velocity (see `FlowProcess`).

        It has the marginals of the flow in the limit of many steps. At K steps its distribution is another one than
        that of K steps of an ODE solver. What samples it takes the network as `specpolicy.flow_denoiser` wraps it.

        Args:
            times: (K+1,) in the model's own time, from pure noise to data; or K, that many equal steps.
            noise_at: the time of pure noise: 0 where x_t = t a + (1 - t) e (LeRobot's DiT), 1 where
                x_t = t e + (1 - t) a (pi0, SmolVLA).
            sigma_min: of x_t = t a + (1 - (1 - sigma_min) t) e. The last step leads to the chunk itself.
            clip: bound of x0, which flow models usually lack.

        Raises:
            SpecpolicyError: times that do not lead from noise to data, or another number out of its range.
        """
        process = FlowProcess.of(times, noise_at, sigma_min, clip)
        return cls(process, torch.arange(process.steps - 1, -1, -1))

    def strided(self, steps: int, spacing: str | None = None) -> "GaussianChain":
        """Return a DDPM chain of the same training process with another number of steps, which has another
        distribution.

        Made once.
        """
        return self._derive(steps, spacing)

    def with_ddim(
        self, steps: int, eta: float = 0.0, spacing: str | None = None, reuse_epsilon: bool = True
    ) -> "GaussianChain":
        """Return a DDIM chain (Song et al. 2021) of the same training process.

        `reuse_epsilon` keeps the network's epsilon where x0 was clipped, as diffusers does by default; False recomputes
        epsilon from the clipped x0. Like diffusers', a step from timestep t leaves the noise of t - T // K, whatever
        the timestep of the next step: with trailing or linspace spacing the two may differ. Made once.
        """
        return self._derive(steps, spacing, eta, reuse_epsilon)

    def _derive(
        self, steps: int, spacing: str | None, eta: float | None = None, reuse_epsilon: bool = True
    ) -> "GaussianChain":
        key = (steps, spacing, eta, reuse_epsilon)
        if key not in self._derived:
            with torch.inference_mode(False):  # it is kept, and may be trained on later
                process = dataclasses.replace(self.process, spacing=spacing or self.process.spacing)
                timesteps = process.visited(steps)
                left = None if eta is None else process.left_by_ddim(timesteps, steps)
                self._derived[key] = type(self)(process, timesteps, eta, reuse_epsilon, alpha_bar_next=left)
        return self._derived[key]

    # -- use -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of steps K."""
        return len(self.timesteps)

    def __repr__(self) -> str:
        process = self.process
        kind = process.kind if self.eta is None else f"ddim(eta={self.eta:g})"
        return (
            f"GaussianChain({kind}, {len(self)}/{process.steps} steps, {process.prediction}, "
            f"{process.variance}, clip={process.clip})"
        )

    def x0(self, output: Tensor, state: Tensor, step: Step) -> Tensor:
        """Return x0, the predicted chunk, for the network's output `output` at `state`, clipped as `clip` does."""
        # In half precision its product with a coefficient would be rounded, and so would the mean.
        output = output.to(torch.promote_types(output.dtype, state.dtype))
        if self.process.prediction != "sample":
            tables = self._tables_for(step, state)
            output = tables.from_state[step] * state + tables.from_output[step] * output
        return self.clip(output)

    def clip(self, x0: Tensor) -> Tensor:
        """Return x0 clipped, unless this chain also needs it unclipped (DDIM that keeps the network's epsilon)."""
        return x0 if self.uses_raw else self.process.clipped(x0)

    def mean(self, state: Tensor, x0: Tensor, step: Step) -> Tensor:
        """Return the mean of the state after `step`, from `state` and the result of `x0` there."""
        return self._tables_for(step, state).state_weight[step] * state + self.drift(x0, step)

    def drift(self, x0: Tensor, step: Step) -> Tensor:
        """Return the part of the next state that comes from x0."""
        tables = self._tables_for(step, x0)
        if not self.uses_raw:
            return tables.x0_weight[step] * x0
        return tables.x0_weight[step] * self.process.clipped(x0) + tables.raw_x0_weight[step] * x0

    def shock(self, noise: Tensor, step: Step) -> Tensor:
        """Return the part of the next state that comes from standard normal noise."""
        return self._tables_for(step, noise).sigma[step] * noise

    def gap(self, x0: Tensor, other: Tensor, step: Step) -> Tensor:
        """Return the difference of the means of two x0 at the same states, in units of the step's noise.

        Where the last step has no noise the unit is one. Means differ by their drifts alone; subtracting the means
        themselves would lose digits.
        """
        tables = self._tables_for(step, x0)
        if not self.uses_raw:
            return tables.gap_weight[step] * (x0 - other)
        return (self.drift(x0, step) - self.drift(other, step)) / tables.gap_scale[step]

    def rollout(self, root: Tensor, additions: Tensor, steps: slice | Tensor) -> Tensor:
        """Return states (B, W, H, D) after each of `steps` (B, W), consecutive, from `root` (B, H, D).

        `additions` (B, W, H, D) holds the addition of each step: drift + sigma xi. All steps are linear in them, so a
        path is one triangular matrix product. States after a step depend on the additions of that step and of the steps
        before it, bit for bit.
        """
        if additions.shape[1] == 0:
            return additions
        _, transfer = self._on(root.device)
        weight = self._tables_for(steps, root).state_weight
        if isinstance(steps, slice):
            transfer, weight = transfer[steps, steps], weight[steps.start]
        else:
            transfer, weight = transfer[steps[:, :, None], steps[:, None, :]], weight[steps[:, 0]]
        flat = torch.cat([(additions[:, 0] + weight * root)[:, None], additions[:, 1:]], dim=1).flatten(2)
        return (transfer @ flat.double()).to(additions.dtype).view_as(additions)

    def timesteps_on(self, device: torch.device) -> Tensor:
        """`timesteps` (K,) on a device; made once."""
        return self._on(device)[0]

    def _tables_for(self, step: Step, like: Tensor) -> StepTables:
        """Return tables to index by `step`: lists of Python floats for an int, else (K, 1, 1) tensors beside `like`."""
        if isinstance(step, int):
            return self._lists
        key = (like.device, like.dtype)
        if key not in self._placed:
            with torch.inference_mode(False):  # they are kept, and may be trained on later
                self._placed[key] = self.tables.placed(*key)
        return self._placed[key]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return timesteps and the transfer of `rollout` on a device."""
        if device not in self._by_device:
            with torch.inference_mode(False):
                # In float64: float32 products are not safe from autocast and TF32, and a state that is off by a part of
                # its step's noise has another distribution.
                transfer = transfer_of(self.state_weight)
                self._by_device[device] = (self.timesteps.to(device), transfer.to(device))
        return self._by_device[device]
