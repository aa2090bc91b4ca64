"""The loss of minimal iterative policies (Pan et al. 2025, arXiv 2512.01809; weights as in the authors' code)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import Denoiser
from specpolicy.training.loss import Draws


class Regressing:
    """Mean squared error of both answers, the first divided by t squared, the second by (1 - t) squared.

    The second question is asked from the chunk with noise of deviation 1 - t, not from the first answer.
    """

    figures: Mapping[str, float] = {}

    def __init__(self, policy: DiffusionPolicy):
        assert policy.config.mip is not None
        self.time = policy.config.mip.time

    def prepare(self, actions: Tensor, executed: Tensor | None = None) -> Tensor:
        """See `Objective.prepare`."""
        return actions

    def draw(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Objective.draw`."""
        return {"noise": torch.randn(shape, generator=generator)}

    def loss(self, network: Denoiser, target: Tensor, cond: Tensor, draws: Draws, half: bool) -> Tensor:
        """See `Objective.loss`. Both questions are one call of 2 N rows."""
        near = target + (1 - self.time) * draws["noise"]
        state = torch.cat([torch.zeros_like(target), near])
        level = torch.arange(1, -1, -1, device=target.device).repeat_interleave(len(target))
        with torch.autocast(target.device.type, torch.bfloat16, enabled=half):
            output = network(state, level, torch.cat([cond, cond]))
        first, second = (output.float() - torch.cat([target, target])).square().chunk(2)
        return first.mean() / self.time**2 + second.mean() / (1 - self.time) ** 2
