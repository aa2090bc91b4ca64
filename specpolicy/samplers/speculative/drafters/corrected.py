"""A frozen root with a learned head that says how x0 changes down the window (De Bortoli et al. 2025, 3.3)."""

from typing import Protocol

from torch import Tensor

from specpolicy.samplers.speculative.drafters.base import Drafter, step_out
from specpolicy.samplers.speculative.drafters.frozen_root import evaluate_root, hold
from specpolicy.samplers.speculative.window import Problem, Proposal, Window


class CorrectionHead(Protocol):
    """(root (B, H, D), its x0 (B, H, D), its timestep (B,), timesteps (B, W) below it, cond) -> change of x0
    (B, W, H, D)."""

    def __call__(self, root: Tensor, x0: Tensor, start: Tensor, timesteps: Tensor, cond: Tensor | None) -> Tensor: ...


class Corrected(Drafter):
    """Two calls a round, like the frozen root; one evaluation of the head serves the whole window."""

    name = "corrected"

    def __init__(self, head: CorrectionHead):
        self.head = head

    def propose(self, memory: None, problem: Problem, window: Window) -> Proposal:
        """See `Drafter.propose`."""
        root_x0 = evaluate_root(problem, window)
        x0 = hold(root_x0, window)
        if window.drafts:
            timesteps = problem.timesteps[window.steps[:, : window.drafts]]
            start = problem.timesteps[window.steps[:, 0]]
            x0 = problem.chain.clip(x0 + self.head(window.root, root_x0, start, timesteps, problem.cond))
        return step_out(problem, window, x0, root_x0)
