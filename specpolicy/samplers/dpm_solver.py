"""DPM-Solver++ (Lu et al. 2022), the solver of diffusers. Deterministic: another law, no noise to speculate on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, check_finite, repeat_statistics


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++ multistep of the given `order` with `steps` calls, on the clipped x0 of the policy's process."""

    steps: int = 10
    order: int = 2
    name: str = "dpm_solver"

    def run(
        self,
        denoiser: Denoiser,
        chain: GaussianChain,
        state: Tensor,
        cond: Tensor | None,
        noise: NoiseSource,
        return_states: bool = False,
    ) -> Sample:
        """See `Sampler.run`."""
        from diffusers import DPMSolverMultistepScheduler

        process = chain.process
        alphas = process.alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), process.alpha_bar[:-1]])
        # The solver is given x0 itself ("sample" prediction), so that the policy's clip holds for it too.
        solver: Any = DPMSolverMultistepScheduler(
            num_train_timesteps=process.steps,
            trained_betas=(1 - alphas).numpy(),
            prediction_type="sample",
            solver_order=self.order,
            algorithm_type="dpmsolver++",
            timestep_spacing=process.spacing,
            steps_offset=process.offset,
        )
        solver.set_timesteps(self.steps, device=state.device)
        timesteps = solver.timesteps.cpu()
        from_state, from_output = (table.tolist() for table in process.x0_coefficients(timesteps))
        checksums = torch.zeros(len(timesteps), device=state.device)
        states = [state]
        for step, timestep in enumerate(timesteps.tolist()):
            output = denoiser(state, torch.full((len(state),), timestep, device=state.device), cond)
            x0 = process.clipped(from_state[step] * state + from_output[step] * output)
            state = solver.step(x0, timestep, state).prev_sample
            checksums[step] = state.sum()
            if return_states:
                states.append(state)
        check_finite(checksums, timesteps)
        statistics = repeat_statistics(len(state), len(solver.timesteps))
        return Sample(state, statistics, torch.stack(states) if return_states else None)
