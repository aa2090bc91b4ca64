"""DPM-Solver++ (Lu et al. 2022), multistep. Deterministic: there is no noise to speculate on."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from specpolicy.diffusion.process import TrainingProcess
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Draw, Sample, Sampler, Setting, check_finite, repeat_statistics
from specpolicy.samplers.options import check_counts

FEW = 15  # with fewer calls the last two steps are of lower order, as in the authors' code and in diffusers


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver++ multistep on the clipped x0 of the policy's process. Its distribution is not the policy's.

    Timesteps and numbers are those of diffusers' DPMSolverMultistepScheduler.

    Attributes:
        steps: network calls.
        order: 1 to 3.
    """

    name: ClassVar[str] = "dpm_solver"

    steps: int = 10
    order: int = 2

    def __post_init__(self) -> None:
        check_counts(self, "steps", "order", optional=False)
        if self.order > 3:
            raise SpecpolicyError(f"option 'order' of sampler 'dpm_solver' must be 1, 2 or 3, got {self.order}")

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        process, device = setting.chain.process, setting.device
        if process.kind != "ddpm":
            others = "a flow: use euler, midpoint or rk4" if process.kind == "flow" else "regression: use ddpm"
            raise SpecpolicyError(
                f"sampler 'dpm_solver' is for policies that learnt to denoise, and this is one of {others}"
            )
        timesteps = solver_timesteps(process, self.steps)
        from_state, from_output = (table.tolist() for table in process.x0_coefficients(timesteps))
        weights = solver_weights(process.alpha_bar[timesteps], self.order)

        def draw(model: Model, chunks: Chunks) -> Sample:
            state, batch = chunks.state, len(chunks.state)
            checksums = torch.zeros(len(timesteps), device=device)
            states = [state]
            guesses: list[Tensor] = []  # the last x0s, newest first
            for step, timestep in enumerate(timesteps.tolist()):
                output = model(state, torch.full((batch,), timestep, device=device), chunks.cond)
                x0 = process.clipped(from_state[step] * state + from_output[step] * output)
                guesses = [x0, *guesses[: self.order - 1]]
                kept, *shares = weights[step]
                state = kept * state
                for share, guess in zip(shares, guesses, strict=False):  # a step of lower order uses fewer
                    state = state + share * guess
                checksums[step] = output.sum()  # before it is clipped
                if chunks.return_states:
                    states.append(state)
            check_finite(checksums, timesteps)
            statistics = repeat_statistics(batch, len(timesteps))
            return Sample(state, statistics, torch.stack(states) if chunks.return_states else None)

        return draw


def solver_timesteps(process: TrainingProcess, steps: int) -> Tensor:
    """(steps,) int64, noisiest first: like a chain's timesteps, but the last step, which leads to no noise, is one of
    them."""
    total = process.steps
    if process.spacing == "linspace":
        timesteps = np.linspace(0, total - 1, steps + 1).round()[:0:-1]
    elif process.spacing == "leading":
        timesteps = np.arange(steps, 0, -1.0) * (total // (steps + 1)) + process.offset
    else:
        timesteps = np.arange(total, 0, -total / steps).round() - 1
    inside = timesteps.min() >= 0 and timesteps.max() < total
    if len(timesteps) != steps or not inside or (np.diff(timesteps) >= 0).any():
        raise SpecpolicyError(f"dpm_solver finds no {steps} timesteps in a training of {total}: choose other steps")
    return torch.from_numpy(timesteps.astype(np.int64))


def solver_weights(alpha_bar: Tensor, order: int) -> list[list[float]]:
    """Weights of the state and of the newest x0s, for each step. A step is linear in them.

    The formulas are those of algorithm 2 and appendix B of the paper, its midpoint form. lambda is the logarithm of
    signal over noise, h its growth in this step, and r the growth in earlier steps divided by h.
    """
    signal, noise = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()
    growth = [math.log(one / other) for one, other in zip(signal, noise, strict=True)]
    count, found = len(signal), []
    for step in range(count - 1):
        most = 2 if step == count - 2 and count < FEW else 3
        alpha, h = signal[step + 1], growth[step + 1] - growth[step]
        kept, first = noise[step + 1] / noise[step], -alpha * math.expm1(-h)
        match min(order, most, step + 1):
            case 1:
                found.append([kept, first])
            case 2:
                half = 0.5 * first * h / (growth[step] - growth[step - 1])
                found.append([kept, first + half, -half])
            case _:
                r0, r1 = ((growth[step - ago] - growth[step - ago - 1]) / h for ago in (0, 1))
                slope = alpha * (math.expm1(-h) / h + 1)
                bend = -alpha * ((math.expm1(-h) + h) / h**2 - 0.5)
                # The slope is D1 = (1 + s) d0 - s d1, the bend D2 = (d0 - d1) / (r0 + r1), with d0 = (m0 - m1) / r0,
                # d1 = (m1 - m2) / r1 of the last x0s m and s = r0 / (r0 + r1).
                s = r0 / (r0 + r1)
                newer = (slope * (1 + s) + bend / (r0 + r1)) / r0
                older = -(slope * s + bend / (r0 + r1)) / r1
                found.append([kept, first + newer, older - newer, -older])
    return [*found, [0.0, 1.0]]  # to no noise: x0 itself
