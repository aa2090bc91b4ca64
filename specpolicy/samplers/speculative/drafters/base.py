"""The base class of drafters."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from specpolicy.samplers.speculative.problem import Array, Drafts


class Drafter(ABC):
    """Proposes the next states of a chain by guessing the network's output there.

    A drafter guesses x0 and takes the chain's ordinary step with it. Its memory of a chunk is a value of its own
    choice, which the loop passes back to it.

    One rule keeps every sampler exact: the guess for step n may depend on the noises of earlier steps only, and on
    noises that have been thrown away. `reuses_noise` says that a drafter's memory has seen noises that are still to be
    used, at states where this rule holds under token-level verification. `stacked` and `single`: whether it drafts
    batches of tensors, and one chunk in numpy.
    """

    name: ClassVar[str]
    reuses_noise: ClassVar[bool] = False
    stacked: ClassVar[bool] = True
    single: ClassVar[bool] = False

    def begin(self, problem: Any) -> Any:
        """Return the memory at the start of a batch of chunks."""
        return None

    @abstractmethod
    def draft(self, memory: Any, problem: Any, window: Any) -> Drafts:
        """Draft the window."""

    def learn(self, memory: Any, problem: Any, window: Any, drafts: Any, x0: Array, verdict: Any) -> Any:
        """Return the memory after a round, in which the network's output was `x0` (B, W+1, H, D). In rounds of fixed
        shapes window and drafts are None, since `problem.values` has them; x0 and verdict are as there."""
        return memory

    def note(self, memory: Any, problem: Any, window: Any, drafts: Drafts, x0: Array) -> Any:
        """Return the memory after a call, before its verdict is known. Rounds of fixed shapes learn only in the next
        round, which may have another window."""
        return memory

    def keep(self, memory: Any, index: Tensor) -> Any:
        """Select rows of the memory."""
        return memory if memory is None else memory[index]
