"""The speculative decoder: the same tokens as the ordinary one, in fewer calls (Spiffy, arXiv 2509.18085; the paper in
code: `specpolicy.tokens.reference`).

Each call evaluates the current state and drafts of later states as one batch. Then the rule is followed from the
current state to the next one. If that state, token for token and position for position, is among the drafts, its logits
are known and the rule is followed further. Nothing else about a draft matters, so any drafter, even a bad or random
one, leads to the tokens of the ordinary decoder. (Given the same logits: see docs/tokens.md on floating point.)
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from specpolicy.tokens.ordinary import Decoded, Network, evaluate
from specpolicy.tokens.rules import Decision, DecodingNoise, Rule


@dataclass(frozen=True)
class Round:
    """The information a drafter may use: one call of A unfinished chunks.

    Attributes:
        roots: (A, L) their new states, which are evaluated next.
        chunks: (A,) their numbers.
        states, owner, decision: (N, L), (N,): all rows of the call and the rule's decision on them.
        last: (A,) the row from which each root came.
    """

    rule: Rule
    noise: DecodingNoise
    vocabulary: int
    roots: Tensor
    chunks: Tensor
    states: Tensor
    owner: Tensor
    decision: Decision
    last: Tensor

    @property
    def remaining(self) -> Tensor:
        """(A,) masked positions of the roots."""
        return (self.roots == self.vocabulary).sum(dim=1)


class Drafter(Protocol):
    """Guesses states that follow the roots."""

    def draft(self, round: Round) -> tuple[Tensor, Tensor]:
        """Return drafted states (M, L), each with a masked position left, and the chunks (M,) they belong to."""
        ...


def state_keys(states: Tensor) -> list[bytes]:
    """Return keys that are equal for equal states, compared whole."""
    numbers = states.to(torch.int32).cpu().numpy()
    return [row.tobytes() for row in numbers]


def speculate(
    network: Network,
    rule: Rule,
    drafter: Drafter,
    noise: DecodingNoise,
    start: Tensor,
    vocabulary: int,
    keep_paths: bool = False,
) -> Decoded:
    """Decode the chunks `start` (B, L) with drafts. The first call has none, because there is nothing yet to draft
    from."""
    batch, device = len(start), start.device
    states = start.clone()
    calls, rows = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64)
    paths = [[state] for state in states.clone()]
    accepted = []
    chunks = (states == vocabulary).any(dim=1).nonzero().flatten()
    drafts, drafted_for = states[:0], chunks[:0]
    while len(chunks):
        evaluated, owner = torch.cat([states[chunks], drafts]), torch.cat([chunks, drafted_for])
        decision = rule.decide(evaluate(network, evaluated, owner), evaluated, noise, owner)
        taken = _follow(evaluated, owner, decision.following, len(chunks))
        last = torch.tensor([path[-1] for path in taken], device=device)
        active = chunks.cpu()
        calls[active] += 1
        rows += torch.bincount(owner.cpu(), minlength=batch)
        accepted.append(torch.full((batch,), -1, dtype=torch.int64))
        accepted[-1][active] = torch.tensor([len(path) - 1 for path in taken])
        if keep_paths:
            for chunk, path in zip(active.tolist(), taken, strict=True):
                paths[chunk] += list(decision.following[path])
        states[chunks] = decision.following[last]
        unfinished = (states[chunks] == vocabulary).any(dim=1)
        chunks, last = chunks[unfinished], last[unfinished]
        if len(chunks):
            here = Round(rule, noise, vocabulary, states[chunks], chunks, evaluated, owner, decision, last)
            drafts, drafted_for = drafter.draft(here)
    return Decoded(states, calls, rows, accepted, paths if keep_paths else None)


def _follow(evaluated: Tensor, owner: Tensor, following: Tensor, roots: int) -> list[list[int]]:
    """For each root, the first rows of a call, return the rows that the rule passes through, from the root to the
    last."""
    owners = owner.tolist()
    row_of = {key: row for row, key in reversed(list(enumerate(zip(owners, state_keys(evaluated), strict=True))))}
    after = list(zip(owners, state_keys(following), strict=True))
    taken = []
    for root in range(roots):
        path = [root]
        # A step reveals at least one position, so the path never comes back to a state.
        while (row := row_of.get(after[path[-1]])) is not None:
            path.append(row)
        taken.append(path)
    return taken
