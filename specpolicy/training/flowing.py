"""The loss of flow policies: mean squared error of the velocity (Lipman et al. 2023, eq. 21; Liu et al. 2022)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from specpolicy.diffusion.flow import FlowProcess
from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import Denoiser
from specpolicy.training.loss import Draws

SHAPE, MOST = 1.5, 0.999  # of "beta": t = 0.999 (1 - u), u ~ Beta(1.5, 1)


class Flowing:
    """Mean squared error of the velocity that the network predicts at x_t = t a + (1 - (1 - sigma_min) t) e."""

    figures: Mapping[str, float] = {}

    def __init__(self, policy: DiffusionPolicy):
        process, options = policy.chain.process, policy.config.flow
        assert isinstance(process, FlowProcess) and options is not None
        self.process, self.time_sampling = process, options.time_sampling

    def prepare(self, actions: Tensor, executed: Tensor | None = None) -> Tensor:
        """See `Objective.prepare`."""
        return actions

    def draw(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Objective.draw`."""
        uniform = torch.rand(shape[0], generator=generator, dtype=torch.float64)
        # The distribution function of Beta(b, 1) is u^b.
        progress = uniform if self.time_sampling == "uniform" else MOST * (1 - uniform ** (1 / SHAPE))
        noise = torch.randn(shape, generator=generator)
        return {"progress": progress.float(), "level": self.process.level(progress).float(), "noise": noise}

    def loss(self, network: Denoiser, target: Tensor, cond: Tensor, draws: Draws, half: bool) -> Tensor:
        """See `Objective.loss`."""
        process, noise = self.process, draws["noise"]
        progress = draws["progress"][:, None, None]
        remaining = process.noise_scale(progress)
        state = (progress * target + remaining * noise) / (progress.square() + remaining.square()).sqrt()
        wanted = process.sign * (target - (1 - process.sigma_min) * noise)
        with torch.autocast(target.device.type, torch.bfloat16, enabled=half):
            output = network(state, draws["level"], cond)
        return functional.mse_loss(output.float(), wanted)
