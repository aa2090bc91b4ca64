"""The frozen root: evaluate the current state, then hold its x0 (Hu et al. 2025; De Bortoli et al. 2025, 3.2)."""

from typing import Any

from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts


class FrozenRoot(Drafter):
    """Two calls a round: one for the root, one for the drafts."""

    name = "frozen_root"
    single = True

    def draft(self, memory: None, problem: Any, window: Any) -> Drafts:
        """See `Drafter.draft`."""
        x0 = problem.evaluate_root(window)
        return problem.follow(window, window.hold(x0), root_x0=x0)
