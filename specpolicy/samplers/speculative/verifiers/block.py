"""Block verification: decide on a window as a whole (Sun et al. 2025; for diffusions Soen et al. 2026)."""

import torch
from torch import Tensor

from specpolicy.samplers.speculative.coupling import TINY, draw_residual, log_ratio, residual_mass
from specpolicy.samplers.speculative.verifiers.base import Decision, Verifier


class Block(Verifier):
    """Accepts the longest prefix that some test passes, which no token-level rule can beat on average.

    How far it gets depends on the noises behind the prefix too, so none of them may be used again.
    """

    name = "block"
    keeps_noise = False

    def decide(self, delta: Tensor, coordinate: Tensor, uniform: Tensor, second: Tensor, width: Tensor) -> Decision:
        """See `Verifier.decide`."""
        batch, window = delta.shape
        shift = torch.zeros(batch, dtype=torch.float64)
        if window == 0:
            return Decision(torch.zeros_like(width), shift)
        # log p_i = min(0, log p_{i-1} + log q/p of draft i): a sum held below zero, in closed form.
        total = torch.where(delta > TINY, log_ratio(delta, coordinate), torch.zeros_like(delta)).cumsum(dim=1)
        log_p = total - total.cummax(dim=1).values.clamp(min=0)
        index = torch.arange(1, window + 1)
        # h_i: the chance that the prefix of i drafts passes; p_w where the window ends.
        mass = residual_mass(log_p[:, :-1], delta[:, 1:])
        chance = mass / (mass - torch.expm1(log_p[:, :-1])).clamp(min=TINY)
        chance = torch.cat(
            [torch.where(log_p[:, :-1] == 0, torch.ones_like(chance), chance), log_p[:, -1:].exp()], dim=1
        )
        chance = torch.where(index == width[:, None], log_p.exp(), chance)
        passed = ((uniform < chance) & (index <= width[:, None])).long()
        accepted = (passed * index).amax(dim=1)
        row = (accepted < width).nonzero().flatten()
        if len(row):
            at = accepted[row]
            before = torch.cat([torch.zeros(batch, 1, dtype=log_p.dtype), log_p], dim=1)[row, at]
            shift[row] = draw_residual(before, delta[row, at], second[row, at]) - coordinate[row, at]
        return Decision(accepted, shift)
