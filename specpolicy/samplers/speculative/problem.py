"""What a round of exact speculation is made of, whatever arrays it is computed in."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from specpolicy.samplers.base import Sample, SampleStatistics
from specpolicy.samplers.speculative.coupling import Floats
from specpolicy.samplers.speculative.verifiers.base import Verdict

Array = Any  # a tensor of a batch (B, ...), or a numpy array of one chunk (...) whose H and D are one axis


class Window(Protocol):
    """The steps a round may take: W drafts from the current state on.

    `root` (B, H, D) current exact states; `noise` (B, W+1, H, D) what each step adds, in units of sigma; `drafts` W.
    """

    root: Array
    noise: Array

    @property
    def drafts(self) -> int: ...

    def hold(self, x0: Array) -> Array:
        """x0 (B, H, D) as the guess for every draft, (B, W, H, D)."""
        ...


@dataclass(frozen=True)
class Known:
    """Evaluations that need no call any more: `mask` (B, W+1) bool, on the host, and `x0` (B, W+1, H, D), which holds
    the network's x0 where the mask is true."""

    mask: np.ndarray
    x0: Array


@dataclass(frozen=True)
class Drafts:
    """What a drafter proposes.

    `states` (B, W+1, H, D), the root's first, then the state after each step; `x0` (B, W, H, D): the guesses they were
    made with, in place of the network's. `known`: states that have been evaluated: a root, or what an earlier round
    found. `noise` (B, W, H, D) that leads to the states where it is not the window's: a drafter may transform noises
    that nobody has looked at, if what it makes of those of a step is standard normal given all that came before.
    """

    states: Array
    x0: Array
    known: Known | None = None
    noise: Array | None = None


class Problem(Protocol):
    """Chunks that are being denoised: their states, their randomness, the network, and the count of its calls."""

    stacked: ClassVar[bool]  # whether arrays have rows, (B, ...)
    chain: Any

    @property
    def unfinished(self) -> bool: ...

    def open(self) -> Any:
        """The window of the next round."""
        ...

    def evaluate_root(self, window: Any) -> Array:
        """x0 (B, H, D) at the root, by a call of its own."""
        ...

    def follow(self, window: Any, x0: Array, root_x0: Array | None = None) -> Drafts:
        """The drafts that follow from guesses `x0` (B, W, H, D) made before any step is taken. `root_x0` (B, H, D): of
        the root, if it has been evaluated."""
        ...

    def evaluate(self, window: Any, drafts: Drafts) -> Array:
        """The network's x0 (B, W+1, H, D) at all states, in one call for those that are not known."""
        ...

    def gaps(self, window: Any, drafts: Drafts, x0: Array) -> tuple[Floats, Floats, Floats, Floats, np.ndarray]:
        """What a verifier decides on, see `Verifier.decide`."""
        ...

    def commit(self, window: Any, drafts: Drafts, x0: Array, verdict: Verdict) -> None:
        """Go on behind the accepted drafts and the corrected state, or the ordinary step after a full window."""
        ...

    def redraw(self) -> None:
        """New noises for all steps: a verifier has looked at those of steps that are still to be taken."""
        ...

    def leave(self) -> Tensor | None:
        """Drop finished rows: the index of those that go on, or None where none was dropped."""
        ...

    def parent(self, x0: Array, verdict: Verdict) -> Array:
        """Of x0 (B, W+1, H, D) that at the state behind which each row goes on, (B, H, D)."""
        ...

    def sample(self) -> Sample:
        """The chunks, when all are finished."""
        ...


class Tally:
    """What a sample has cost so far, by row, and where drafts were rejected."""

    def __init__(self, batch: int, count: int):
        self.calls, self.rows = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.accepted: list[np.ndarray] = []
        self.evaluated: list[np.ndarray] = []
        self.rejections = np.zeros(count, np.int64)
        self._before = self.rows.copy()

    def call(self, rows: np.ndarray, evaluated: np.ndarray | int) -> None:
        """One call, in which so many states of these rows were evaluated."""
        self.calls[rows] += np.asarray(evaluated) > 0
        self.rows[rows] += evaluated

    def round(self, rows: np.ndarray, position: np.ndarray, width: np.ndarray, accepted: np.ndarray) -> None:
        """The end of a round, at `position` (n,) before it."""
        for record, numbers in ((self.accepted, accepted), (self.evaluated, (self.rows - self._before)[rows])):
            record.append(np.full(len(self.rows), -1))
            record[-1][rows] = numbers
        self._before = self.rows.copy()
        np.add.at(self.rejections, position + accepted, accepted < width)

    def statistics(self) -> SampleStatistics:
        """As samplers return them."""
        accepted, evaluated = (
            [torch.from_numpy(part) for part in record] for record in (self.accepted, self.evaluated)
        )
        calls, rows, rejections = (torch.from_numpy(part) for part in (self.calls, self.rows, self.rejections))
        return SampleStatistics(calls, rows, accepted, evaluated, rejections)
