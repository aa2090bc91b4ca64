"""Block verification: decide on a window as a whole (Sun et al. 2025; for diffusions Soen et al. 2026)."""

import numpy as np

from specpolicy.samplers.speculative.coupling import TINY, Floats, draw_residual, log_ratio, residual_mass
from specpolicy.samplers.speculative.verifiers.base import Verdict, Verifier


class Block(Verifier):
    """Accepts the longest prefix that passes some test, which no token-level rule can beat on average.

    The length also depends on the noises after the prefix, so none of them may be used again.
    """

    name = "block"
    keeps_noise = False

    def decide(self, delta: Floats, coordinate: Floats, uniform: Floats, second: Floats, width: np.ndarray) -> Verdict:
        """See `Verifier.decide`."""
        batch, window = delta.shape
        shift = np.zeros(batch)
        if window == 0:
            return Verdict(np.zeros_like(width), shift)
        # log p_i = min(0, log p_{i-1} + log q/p of draft i): a sum held below zero, in closed form.
        total = np.where(delta > TINY, log_ratio(delta, coordinate), 0.0).cumsum(axis=1)
        log_p = total - np.maximum(np.maximum.accumulate(total, axis=1), 0.0)
        index = np.arange(1, window + 1)
        # h_i: the probability that the prefix of i drafts passes; p_w where the window ends.
        chance = np.exp(log_p)
        if window > 1:
            before = log_p[:, :-1]
            mass = residual_mass(before, delta[:, 1:])
            inner = np.where(before == 0, 1.0, mass / np.maximum(mass - np.expm1(before), TINY))
            chance[:, :-1] = np.where(index[:-1] == width[:, None], chance[:, :-1], inner)
        passed = (uniform < chance) & (index <= width[:, None])
        accepted = (passed * index).max(axis=1)
        row = np.flatnonzero(accepted < width)
        if len(row):
            at = accepted[row]
            parent = np.where(at > 0, log_p[row, at - 1], 0.0)
            shift[row] = draw_residual(parent, delta[row, at], second[row, at]) - coordinate[row, at]
        return Verdict(accepted, shift)
