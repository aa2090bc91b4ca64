"""The loss of policies that learn to continue committed actions.

Training-time action conditioning (arXiv 2512.05964, section 4): of each window the first d actions from the observed
step on are given, d uniform in 0 ... `prefix`, and the error of the others counts. The given ones are those that the
demonstration executed. Where noise was executed, the label of the next action is the answer to it, which no rule at
run time could know. With `uncommitted`, d is 0 in that share of the windows, and uniform in 1 ... `prefix` in the rest.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import Denoiser
from specpolicy.training.loss import Draws, noised


class Continuing:
    """Mean squared error of the network's prediction at the entries of a noised chunk that are not committed."""

    figures: Mapping[str, float] = {}

    def __init__(self, policy: DiffusionPolicy, uncommitted: float | None = None):
        assert policy.prefix is not None
        self.process, self.prefix, self.uncommitted = policy.chain.process, policy.prefix, uncommitted

    def prepare(self, actions: Tensor, executed: Tensor | None = None) -> Tensor:
        """See `Objective.prepare`: (N, 2, H, D), the labels and what was executed."""
        return torch.stack([actions, actions if executed is None else executed], dim=1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Objective.draw`."""
        timestep = torch.randint(self.process.steps, shape[:1], generator=generator)
        noise = torch.randn((shape[0], *shape[2:]), generator=generator)
        count = torch.randint(self.prefix.length + 1, shape[:1], generator=generator)
        if self.uncommitted is not None:
            some = 1 + torch.randint(self.prefix.length, shape[:1], generator=generator)
            count = some * (torch.rand(shape[:1], generator=generator) >= self.uncommitted)
        return {"timestep": timestep, "noise": noise, "count": count}

    def loss(self, network: Denoiser, target: Tensor, cond: Tensor, draws: Draws, half: bool) -> Tensor:
        """See `Objective.loss`. Each window counts the same, however many of its actions are left."""
        labels, executed = target.unbind(dim=1)
        timestep = draws["timestep"]
        state, wanted = noised(self.process, labels, draws["noise"], timestep)
        given = self.prefix.pack(cond, executed[:, self.prefix.first :], draws["count"])
        with torch.autocast(target.device.type, torch.bfloat16, enabled=half):
            output = network(state, timestep, given)
        free = ~self.prefix.unpack(given, labels.shape[1])[2]
        error = torch.where(free, output.float() - wanted, 0).square().mean(dim=2).sum(dim=1)
        return (error / free.sum(dim=(1, 2))).mean()
