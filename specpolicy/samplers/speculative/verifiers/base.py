"""The base class of verifiers, and of those that accept drafts one by one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from specpolicy.samplers.speculative.coupling import TINY, Floats, log_ratio


@dataclass(frozen=True)
class Verdict:
    """`accepted` (B,) int64: drafts of each row. `shift` (B,) float64: how far the noise of the first rejected step
    moves along its gap to give the corrected state from the target mean; zero where the whole window was accepted."""

    accepted: np.ndarray
    shift: Floats


class Verifier(ABC):
    """Accepts a prefix of the drafts and corrects the first one after it, so that the target's distribution is kept.

    `keeps_noise`: decisions up to the first rejection do not depend on later noises, which may be used again.
    """

    name: ClassVar[str]
    keeps_noise: ClassVar[bool]

    @abstractmethod
    def decide(self, delta: Floats, coordinate: Floats, uniform: Floats, second: Floats, width: np.ndarray) -> Verdict:
        """Decide on gaps `delta` and coordinates S (B, W), of which each row uses the first `width` (B,).

        `uniform` (B, W) and `second` (B, W) are independent uniform numbers in [0, 1). Decisions are made on the host,
        in float64, because they concern only a few numbers a round.
        """


class TokenVerifier(Verifier):
    """Accepts drafts one by one with probability min(1, q/p) and stops at the first rejection (Leviathan et al., 2023).
    Subclasses correct the rejected draft."""

    keeps_noise = True

    def decide(self, delta: Floats, coordinate: Floats, uniform: Floats, second: Floats, width: np.ndarray) -> Verdict:
        """See `Verifier.decide`."""
        # A NaN gap is never accepted; the check of the network's values reports the cause.
        passed = (np.log1p(-uniform) <= log_ratio(delta, coordinate)) | (delta <= TINY)
        passed &= np.arange(delta.shape[1]) < width[:, None]
        accepted = np.where(passed.all(axis=1), width, np.argmin(passed, axis=1)) if passed.size else 0 * width
        shift = np.zeros(len(width))
        row = np.flatnonzero(accepted < width)
        if len(row):
            at = accepted[row]
            shift[row] = self.target_coordinate(delta[row, at], coordinate[row, at], second[row, at])
            shift[row] -= coordinate[row, at]
        return Verdict(accepted, shift)

    @abstractmethod
    def target_coordinate(self, delta: Floats, coordinate: Floats, uniform: Floats) -> Floats:
        """Coordinates (N,) of the corrected states, from the target mean in units of sigma."""
