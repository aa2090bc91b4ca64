"""DPM-Solver++ (Lu et al. 2022), the solver of diffusers. Deterministic: there is no noise to speculate on."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Draw, Sample, Sampler, Setting, check_finite, repeat_statistics
from specpolicy.samplers.options import check_counts


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver++ multistep of the given `order` with `steps` calls, on the clipped x0 of the policy's process.

    Another distribution than the policy's.
    """

    name: ClassVar[str] = "dpm_solver"

    steps: int = 10
    order: int = 2

    def __post_init__(self) -> None:
        check_counts(self, "steps", "order", optional=False)

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`. A solver remembers the last steps, so each draw has one of its own."""
        from diffusers import DPMSolverMultistepScheduler

        process, device = setting.chain.process, setting.device
        alphas = process.alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), process.alpha_bar[:-1]])

        def make_solver() -> Any:
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
            solver.set_timesteps(self.steps, device=device)
            return solver

        timesteps = make_solver().timesteps.cpu()
        from_state, from_output = (table.tolist() for table in process.x0_coefficients(timesteps))

        def draw(model: Model, chunks: Chunks) -> Sample:
            state, batch, solver = chunks.state, len(chunks.state), make_solver()
            checksums = torch.zeros(len(timesteps), device=device)
            states = [state]
            for step, timestep in enumerate(timesteps.tolist()):
                output = model(state, torch.full((batch,), timestep, device=device), chunks.cond)
                x0 = process.clipped(from_state[step] * state + from_output[step] * output)
                state = solver.step(x0, timestep, state).prev_sample
                checksums[step] = state.sum()
                if chunks.return_states:
                    states.append(state)
            check_finite(checksums, timesteps)
            statistics = repeat_statistics(batch, len(timesteps))
            return Sample(state, statistics, torch.stack(states) if chunks.return_states else None)

        return draw
