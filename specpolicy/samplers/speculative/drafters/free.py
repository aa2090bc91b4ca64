"""The Free Drafter: hold the x0 that the last verification paid for (Soen et al. 2026). Needs no training."""

from torch import Tensor

from specpolicy.samplers.speculative.drafters.base import Drafter, step_out
from specpolicy.samplers.speculative.drafters.frozen_root import evaluate_root, hold
from specpolicy.samplers.speculative.window import Outcome, Problem, Proposal, Window, pick


class Free(Drafter):
    """One call a round: drafts with the x0 of the last evaluated state on the path, the parent of the root.

    Only the first round, before anything is evaluated, calls the network for the root.
    """

    name = "free"

    def propose(self, memory: Tensor | None, problem: Problem, window: Window) -> Proposal:
        """See `Drafter.propose`."""
        root_x0 = evaluate_root(problem, window) if memory is None else None
        x0 = memory if root_x0 is None else root_x0
        assert x0 is not None
        return step_out(problem, window, hold(x0, window), root_x0)

    def learn(self, memory: Tensor | None, problem: Problem, window: Window, outcome: Outcome) -> Tensor:
        """See `Drafter.learn`."""
        return pick(outcome.x0, outcome.accepted)
