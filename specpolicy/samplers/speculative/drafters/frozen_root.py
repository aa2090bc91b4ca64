"""The frozen root: evaluate the current state, then hold its x0 (Hu et al. 2025; De Bortoli et al. 2025, 3.2)."""

from torch import Tensor

from specpolicy.samplers.speculative.drafters.base import Drafter, step_out
from specpolicy.samplers.speculative.window import Problem, Proposal, Window


class FrozenRoot(Drafter):
    """Two calls a round: one for the root, one for the drafts."""

    name = "frozen_root"

    def propose(self, memory: None, problem: Problem, window: Window) -> Proposal:
        """See `Drafter.propose`."""
        root_x0 = evaluate_root(problem, window)
        return step_out(problem, window, hold(root_x0, window), root_x0)


def evaluate_root(problem: Problem, window: Window) -> Tensor:
    """x0 (B, H, D) at the root, by a call of its own."""
    return problem.evaluate(window.root[:, None], window.index(0, 1))[:, 0]


def hold(x0: Tensor, window: Window) -> Tensor:
    """x0 (B, H, D) as the guess for every step of the window, (B, W, H, D)."""
    return x0[:, None].expand(-1, window.drafts, -1, -1)
