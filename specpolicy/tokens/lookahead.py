"""Drafts that need no calibration: the look-ahead chain, and fixed-point drafts for pre-drawn orders.

Fixed points: Jacobi decoding, Santilli et al. 2023, arXiv 2305.10427.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.tokens.rules import Rule
from specpolicy.tokens.speculative import Round


@dataclass(frozen=True)
class ChainDrafter:
    """Drafts the next `drafts` states as if the logits of the last reached state never changed."""

    drafts: int

    def draft(self, round: Round) -> tuple[Tensor, Tensor]:
        """See `Drafter.draft`."""
        if round.rule.sampled and round.rule.keyed == "step":
            return self._step_by_step(round)
        return reveal_in_order(round, round.decision.proposal[round.last], self.drafts)

    def _step_by_step(self, round: Round) -> tuple[Tensor, Tensor]:
        """Draft with noise that differs from step to step: apply the rule itself, with each step's noise."""
        rule, noise = round.rule, round.noise
        logits, state = round.decision.logits[round.last], round.roots
        drafts, owners = [], []
        for _ in range(self.drafts):
            state = rule.decide(logits, state, noise, round.chunks).following
            open_ = (state == round.vocabulary).any(dim=1)
            drafts.append(state[open_])
            owners.append(round.chunks[open_])
        return torch.cat(drafts), torch.cat(owners)


@dataclass(frozen=True)
class FixedPointDrafter:
    """Drafts for orders drawn beforehand: each row of the last call gives the tokens that its own step reveals.

    After a mismatch these rows saw a wrong token. They are still later, and mostly better, guesses than the logits of
    the last reached state (Jacobi iteration). Beyond the last row, that row guesses.
    """

    drafts: int

    def draft(self, round: Round) -> tuple[Tensor, Tensor]:
        """See `Drafter.draft`."""
        rule, decision, last = round.rule, round.decision, round.last
        assert rule.counts is not None
        remaining = (round.states == round.vocabulary).sum(dim=1)
        place_of = torch.full((int(round.owner.max()) + 1,), -1, device=last.device)
        place_of[round.chunks] = torch.arange(len(last), device=last.device)
        mine = (place_of[round.owner] >= 0).nonzero().flatten()
        # The row of each step: rows of later steps stand further down, so the nearest before is the largest.
        row_at = torch.zeros(len(last), len(rule.counts), dtype=torch.int64, device=last.device)
        row_at[place_of[round.owner[mine]], rule.step_of(remaining[mine])] = mine
        row_at = row_at.cummax(dim=1).values
        # The step that reveals a position follows from its place in the order.
        step = rule.step_of((remaining[last][:, None] - decision.rank[last]).clamp(min=1))
        logits = decision.logits[row_at.gather(1, step), torch.arange(rule.length, device=last.device)]
        return reveal_in_order(round, self._tokens(round, logits, step), self.drafts)

    @staticmethod
    def _tokens(round: Round, logits: Tensor, step: Tensor) -> Tensor:
        """(A, L) tokens of logits (A, L, V), each with the noise of the step (A, L) that reveals it."""
        gumbel = round.noise.gumbel
        if gumbel is None:
            return logits.argmax(dim=-1)
        if round.rule.keyed == "position":
            return (logits + gumbel[round.chunks]).argmax(dim=-1)
        positions = torch.arange(step.shape[1], device=step.device)
        return (logits + gumbel[round.chunks[:, None], step, positions]).argmax(dim=-1)


def reveal_in_order(round: Round, guess: Tensor, drafts: int) -> tuple[Tensor, Tensor]:
    """Draft up to `drafts` states after each root: fill its masked positions in their order with `guess` (A, L)."""
    sizes = step_sizes(round.rule, round.remaining, drafts)  # (A, drafts)
    place = places(round)
    states = torch.where(place[:, None, :] < sizes[:, :, None], guess[:, None, :], round.roots[:, None, :])
    useful = sizes < round.remaining[:, None]  # a state with nothing masked needs no evaluation
    return states[useful], round.chunks[:, None].expand(-1, drafts)[useful]


def places(round: Round) -> Tensor:
    """(A, L): 0, 1, ... for the masked positions of the roots in the order of the last reached states.

    The positions that the last step revealed came first there. Positions that are not masked get L.
    """
    place = round.decision.rank[round.last] - round.decision.count[round.last][:, None]
    masked = (place >= 0) & (place < round.remaining[:, None])
    return torch.where(masked, place, round.roots.shape[1])


def step_sizes(rule: Rule, remaining: Tensor, steps: int) -> Tensor:
    """(A, steps): how many of the `remaining` (A,) masked positions the next 1, 2, ... steps reveal together.

    With a threshold this is a guess: the positions that the last step left were below it, so each next step reveals
    one.
    """
    if rule.counts is None:
        ahead = torch.arange(1, steps + 1, device=remaining.device)
        return torch.minimum(ahead, remaining[:, None])
    return _sizes_ahead(rule.counts, steps, remaining.device)[remaining]


@functools.lru_cache(maxsize=64)
def _sizes_ahead(counts: tuple[int, ...], steps: int, device: torch.device) -> Tensor:
    """(L + 1, steps): the same numbers by the number of masked positions."""
    rule, remaining = Rule(sum(counts), counts), torch.arange(sum(counts) + 1)
    left, sizes = remaining, []
    for _ in range(steps):
        left = left - rule.count(left)
        sizes.append(remaining - left)
    return torch.stack(sizes, dim=1).to(device)
