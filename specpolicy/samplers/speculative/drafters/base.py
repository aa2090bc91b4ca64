"""What a drafter is."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from specpolicy.samplers.speculative.window import Outcome, Problem, Proposal, Window


class Drafter(ABC):
    """Proposes the next states of a chain by guessing what the network would say there.

    A drafter guesses x0 and takes the chain's ordinary step with it. What it remembers of a chunk is a value of its
    own choice that the loop passes back to it. The rule that keeps every sampler exact: the guess for step n may
    depend on the noises of earlier steps only, and on noises that have been thrown away. `reuses_noise` says that a
    drafter's memory has seen noises that are still to be used, at states where this rule holds under token-level
    verification.
    """

    name: ClassVar[str]
    reuses_noise: ClassVar[bool] = False

    def begin(self, problem: Problem) -> Any:
        """The memory at the start of a batch of chunks."""
        return None

    @abstractmethod
    def propose(self, memory: Any, problem: Problem, window: Window) -> Proposal:
        """Draft the window."""

    def learn(self, memory: Any, problem: Problem, window: Window, outcome: Outcome) -> Any:
        """The memory after a round."""
        return memory

    def keep(self, memory: Any, index: Tensor) -> Any:
        """The memory of some rows."""
        return memory if memory is None else memory[index]


def step_out(problem: Problem, window: Window, x0: Tensor, root_x0: Tensor | None = None) -> Proposal:
    """The proposal that follows from guesses `x0` (B, W, H, D) known before any step is taken."""
    steps = window.index(0, window.drafts)
    additions = problem.chain.drift(x0, steps) + problem.chain.shock(window.noise[:, : window.drafts], steps)
    return Proposal(problem.chain.rollout(window.root, additions, steps), x0, root_x0)
