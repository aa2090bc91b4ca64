"""The Free Drafter: hold the x0 of the last verification (Soen et al. 2026). Needs no training and no extra call."""

from typing import Any

from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Array, Drafts
from specpolicy.samplers.speculative.verifiers.base import Verdict


class Free(Drafter):
    """One call a round: drafts with the x0 of the last evaluated state on the path, the parent of the root.

    Only the first round, before anything is evaluated, calls the network for the root.
    """

    name = "free"
    single = True

    def draft(self, memory: Array | None, problem: Any, window: Any) -> Drafts:
        """See `Drafter.draft`."""
        if memory is None:
            x0 = problem.evaluate_root(window)
            return problem.follow(window, window.hold(x0), root_x0=x0)
        return problem.follow(window, window.hold(memory))

    def learn(self, memory: Array, problem: Any, window: Any, drafts: Drafts, x0: Array, verdict: Verdict) -> Array:
        """See `Drafter.learn`."""
        return problem.parent(x0, verdict)
