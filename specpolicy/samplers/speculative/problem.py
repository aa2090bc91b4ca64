"""Protocols and values of a round of exact speculation, for any kind of array."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from specpolicy.samplers.base import Sample, SampleStatistics
from specpolicy.samplers.speculative.coupling import Floats
from specpolicy.samplers.speculative.verifiers.base import Verdict

Array = Any  # a tensor of a batch (B, ...), or a numpy array of one chunk (...) with H and D as one axis


class Window(Protocol):
    """The possible steps of a round: W drafts from the current state on.

    `root` (B, H, D): current exact states. `noise` (B, W+1, H, D): noise of each step, in units of sigma. `drafts`: W.
    """

    root: Array
    noise: Array

    @property
    def drafts(self) -> int: ...

    def hold(self, x0: Array) -> Array:
        """Return x0 (B, H, D) as the guess for every draft, (B, W, H, D)."""
        ...


@dataclass(frozen=True)
class Known:
    """Evaluations that need no call any more: `mask` (B, W+1) bool, on the host, and `x0` (B, W+1, H, D), the network's
    x0 where the mask is true."""

    mask: np.ndarray
    x0: Array


@dataclass(frozen=True)
class Drafts:
    """A drafter's proposal.

    `states` (B, W+1, H, D): the root first, then the state after each step. `x0` (B, W, H, D): the guesses they were
    made with, in place of the network's. `known`: states that have been evaluated, such as a root or those of an
    earlier round. `noise` (B, W, H, D): the noise that leads to the states, where it is not the window's. A drafter may
    transform noises that nobody has looked at, if the result for a step is standard normal given all that came before.
    """

    states: Array
    x0: Array
    known: Known | None = None
    noise: Array | None = None


class Problem(Protocol):
    """Chunks during denoising: their states, their randomness, the network, and the count of its calls."""

    stacked: ClassVar[bool]  # whether arrays have rows, (B, ...)
    chain: Any

    @property
    def unfinished(self) -> bool: ...

    def open(self) -> Any:
        """Return the window of the next round."""
        ...

    def evaluate_root(self, window: Any) -> Array:
        """Return x0 (B, H, D) at the root, by a separate call."""
        ...

    def follow(self, window: Any, x0: Array, root_x0: Array | None = None) -> Drafts:
        """Return the drafts that follow from guesses `x0` (B, W, H, D) made before any step is taken. `root_x0` (B, H,
        D): the network's x0 at the root, if it has been evaluated."""
        ...

    def evaluate(self, window: Any, drafts: Drafts) -> Array:
        """Return the network's x0 (B, W+1, H, D) at all states, in one call for those that are not known."""
        ...

    def gaps(self, window: Any, drafts: Drafts, x0: Array) -> tuple[Floats, Floats, Floats, Floats, np.ndarray]:
        """Return the numbers that a verifier decides on, see `Verifier.decide`."""
        ...

    def commit(self, window: Any, drafts: Drafts, x0: Array, verdict: Verdict) -> None:
        """Go on after the accepted drafts and the corrected state, or after the ordinary step that follows a full
        window."""
        ...

    def redraw(self) -> None:
        """Draw new noises for all remaining steps, because a verifier has looked at the old ones."""
        ...

    def leave(self) -> Tensor | None:
        """Drop finished rows. Return the index of the remaining rows, or None if none was dropped."""
        ...

    def parent(self, x0: Array, verdict: Verdict) -> Array:
        """Select from x0 (B, W+1, H, D) the one at the state after which each row goes on, (B, H, D)."""
        ...

    def sample(self) -> Sample:
        """Return the chunks, when all are finished."""
        ...


class Tally:
    """Cost of a sample so far, by row, and the steps where drafts were rejected."""

    def __init__(self, batch: int, count: int):
        self.calls, self.rows = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.accepted: list[np.ndarray] = []
        self.evaluated: list[np.ndarray] = []
        self.rejections = np.zeros(count, np.int64)
        self._before = self.rows.copy()

    def call(self, rows: np.ndarray, evaluated: np.ndarray | int) -> None:
        """Count one call with the states that were evaluated of these rows."""
        self.calls[rows] += np.asarray(evaluated) > 0
        self.rows[rows] += evaluated

    def round(self, rows: np.ndarray, position: np.ndarray, width: np.ndarray, accepted: np.ndarray) -> None:
        """Count the end of a round that began at `position` (n,)."""
        for record, numbers in ((self.accepted, accepted), (self.evaluated, (self.rows - self._before)[rows])):
            record.append(np.full(len(self.rows), -1))
            record[-1][rows] = numbers
        self._before = self.rows.copy()
        np.add.at(self.rejections, position + accepted, accepted < width)

    def statistics(self) -> SampleStatistics:
        """Return the totals in the form that samplers return."""
        accepted, evaluated = (
            [torch.from_numpy(part) for part in record] for record in (self.accepted, self.evaluated)
        )
        calls, rows, rejections = (torch.from_numpy(part) for part in (self.calls, self.rows, self.rejections))
        return SampleStatistics(calls, rows, accepted, evaluated, rejections)
