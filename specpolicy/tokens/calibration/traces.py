"""Traces of the ordinary decoder, in ranks. A replay of a trace gives the calls that any drafts would take, without
decoding again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.tokens.graph import Node, Pair
from specpolicy.tokens.ordinary import Network, decode
from specpolicy.tokens.rules import Decision, DecodingNoise, Rule


@dataclass(frozen=True)
class Trace:
    """One chunk of K steps and L positions.

    Attributes:
        step: (L,) the step that revealed each position.
        place, rank: (K, L) int16, seen from the logits of step q: the place of a position among those that step q
            leaves masked (negative: no longer masked), and the rank of its final token.
        gaps: (K,) see `Decision.gap`.
    """

    step: Tensor
    place: Tensor
    rank: Tensor
    gaps: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def masked_after(self, step: int) -> int:
        """Positions still masked after `step`."""
        return int((self.step > step).sum())

    def added(self, seen_from: int, step: int) -> frozenset[Pair]:
        """Return the pairs that `step` reveals, as ranks seen from the logits of an earlier one."""
        positions = (self.step == step).nonzero().flatten()
        places, ranks = self.place[seen_from, positions].tolist(), self.rank[seen_from, positions].tolist()
        return frozenset(zip(places, ranks, strict=True))


@torch.inference_mode()
def record_traces(
    network: Network, rule: Rule, noise: DecodingNoise, start: Tensor, vocabulary: int, blind: bool = False
) -> tuple[list[Trace], Tensor]:
    """Decode the chunks `start` (B, L); return their traces and tokens (B, L).

    `blind`: rank tokens by the logits alone, not by logits plus noise, to measure the cost of that.
    """
    steps: list[list[tuple[Decision, int]]] = [[] for _ in range(len(start))]
    gaps: list[list[float]] = [[] for _ in range(len(start))]

    def observe(states: Tensor, owner: Tensor, decision: Decision) -> None:
        for row, (chunk, gap) in enumerate(zip(owner.tolist(), decision.gap.tolist(), strict=True)):
            steps[chunk].append((decision, row))
            gaps[chunk].append(gap)

    tokens = decode(network, rule, noise, start, vocabulary, observe).tokens
    return [_trace(*found, blind) for found in zip(steps, gaps, tokens, strict=True)], tokens


def _trace(steps: Sequence[tuple[Decision, int]], gaps: list[float], tokens: Tensor, blind: bool) -> Trace:
    length = len(tokens)
    revealed_at = torch.full((length,), -1, dtype=torch.int64)
    place = torch.empty(len(steps), length, dtype=torch.int16)
    rank = torch.empty_like(place)
    for number, (decision, row) in enumerate(steps):
        count = decision.count[row]
        mine = decision.rank[row] < count
        revealed_at[(mine & (revealed_at.to(mine.device) < 0)).cpu()] = number
        place[number] = (decision.rank[row] - count).to(torch.int16).cpu()
        scores = (decision.logits if blind else decision.perturbed)[row]
        rank[number] = (scores > scores.gather(1, tokens[:, None])).sum(dim=1).to(torch.int16).cpu()
    return Trace(revealed_at, place, rank, torch.tensor(gaps))


class Path:
    """The rest of a trace after step `seen_from`, node after node, as drafts from the logits of that step would have to
    be. `upcoming` is the next node that a graph must hold, None where the rest needs no draft."""

    def __init__(self, trace: Trace, seen_from: int):
        self.trace, self.seen_from, self.reached = trace, seen_from, 0
        self.masked = trace.masked_after(seen_from)
        self._pairs: frozenset[Pair] = frozenset()
        self.upcoming: Node | None = None
        self.sequence: tuple[Node, ...] = ()
        self._look()

    def advance(self) -> None:
        """Move past the upcoming node."""
        assert self.upcoming is not None
        self.sequence += (self.upcoming,)
        self.reached += 1
        self._look()

    def _look(self) -> None:
        step = self.seen_from + 1 + self.reached
        if step + 1 >= len(self.trace):  # the state after it has nothing masked and needs no evaluation
            self.upcoming = None
            return
        self._pairs |= self.trace.added(self.seen_from, step)
        self.upcoming = tuple(sorted(self._pairs))


def paths_of(traces: Sequence[Trace]) -> Iterator[Path]:
    """All paths of all traces: from each step but the last two, after which nothing is left to draft."""
    for trace in traces:
        for seen_from in range(len(trace) - 2):
            yield Path(trace, seen_from)
