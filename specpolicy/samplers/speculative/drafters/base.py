"""What a drafter is."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from specpolicy.samplers.speculative.problem import Array, Drafts


class Drafter(ABC):
    """Proposes the next states of a chain by guessing what the network would say there.

    A drafter guesses x0 and takes the chain's ordinary step with it. What it remembers of a chunk is a value of its
    own choice that the loop passes back to it. The rule that keeps every sampler exact: the guess for step n may
    depend on the noises of earlier steps only, and on noises that have been thrown away. `reuses_noise` says that a
    drafter's memory has seen noises that are still to be used, at states where this rule holds under token-level
    verification. `stacked` and `single`: whether it drafts batches of tensors, and one chunk in numpy.
    """

    name: ClassVar[str]
    reuses_noise: ClassVar[bool] = False
    stacked: ClassVar[bool] = True
    single: ClassVar[bool] = False

    def begin(self, problem: Any) -> Any:
        """The memory at the start of a batch of chunks."""
        return None

    @abstractmethod
    def draft(self, memory: Any, problem: Any, window: Any) -> Drafts:
        """Draft the window."""

    def learn(self, memory: Any, problem: Any, window: Any, drafts: Any, x0: Array, verdict: Any) -> Any:
        """The memory after a round, in which the network said `x0` (B, W+1, H, D). In rounds of fixed shapes window
        and drafts are None, as `problem.values` has them; x0 and verdict are as there."""
        return memory

    def note(self, memory: Any, problem: Any, window: Any, drafts: Drafts, x0: Array) -> Any:
        """The memory after a call, before its verdict is known: rounds of fixed shapes learn only in the next round,
        of which the window may be another."""
        return memory

    def keep(self, memory: Any, index: Tensor) -> Any:
        """The memory of some rows."""
        return memory if memory is None else memory[index]
