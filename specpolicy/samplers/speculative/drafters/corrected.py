"""A frozen root with a learned head that predicts how x0 changes down the window (De Bortoli et al. 2025, 3.3)."""

from typing import Protocol

from torch import Tensor

from specpolicy.samplers.rounds.batch import Batch, BatchWindow
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts


class CorrectionHead(Protocol):
    """Maps root (B, H, D), its x0 (B, H, D), its timestep (B,), timesteps (B, W) below it, and cond to the change of x0
    (B, W, H, D)."""

    def __call__(self, root: Tensor, x0: Tensor, start: Tensor, timesteps: Tensor, cond: Tensor | None) -> Tensor: ...


class Corrected(Drafter):
    """Two calls a round, like the frozen root; one evaluation of the head serves the whole window."""

    name = "corrected"

    def __init__(self, head: CorrectionHead):
        self.head = head

    def draft(self, memory: None, problem: Batch, window: BatchWindow) -> Drafts:
        """See `Drafter.draft`."""
        root_x0 = problem.evaluate_root(window)
        x0 = window.hold(root_x0)
        if window.drafts:
            timesteps = problem.timesteps[window.steps]
            change = self.head(window.root, root_x0, timesteps[:, 0], timesteps[:, :-1], problem.cond)
            x0 = problem.chain.clip(x0 + change)
        return problem.follow(window, x0, root_x0)
