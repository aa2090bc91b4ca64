"""Spiffy as its paper states it (Agrawal et al. 2025, arXiv 2509.18085): slow, one chunk at a time, to be read beside
it.

`specpolicy.tokens.speculate` with a `GraphDrafter` decodes the same tokens in the same calls:
tests/tokens/test_token_reference.py. As there, the whole chunk is one block, noise is drawn beforehand and belongs to a
position, and graphs are not pruned.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from specpolicy.tokens.graph import DraftGraph
from specpolicy.tokens.rules import DecodingNoise, Rule

State = list[int]  # the token of each position, or the size of the vocabulary where it is masked


class Decoding(NamedTuple):
    """The `tokens` of a chunk, its number of network `calls`, the drafts `accepted` in each call, and all states."""

    tokens: State
    calls: int
    accepted: list[int]
    states: list[State]


def spiffy(
    network: Callable[[Tensor], Tensor], rule: Rule, noise: DecodingNoise, graph: DraftGraph, vocabulary: int
) -> Decoding:
    """Lossless verification of draft blocks (algorithm 1).

    network: states (N, L) -> logits (N, L, V); noise: that of one chunk; graph: of draft blocks, see `fill`.
    """
    state = [vocabulary] * rule.length
    states, accepted = [state], list[int]()
    drafts: list[State] = []
    while vocabulary in state:
        # One call gives the target distribution at the state, and the draft distributions at all draft blocks.
        target, *drafted = network(torch.tensor([state, *drafts]))
        state = unmask(rule, state, target, noise)
        states.append(state)
        accepted.append(0)
        # A draft block equal to the new state is accepted, and its distribution is the target from here on. The
        # graph's edges are not needed: a step unmasks positions, so only a child of the block before can be equal.
        while vocabulary in state and state in drafts:
            target = drafted[drafts.index(state)]
            state = unmask(rule, state, target, noise)
            states.append(state)
            accepted[-1] += 1
        drafts = fill(graph, rule, state, target, noise)
    return Decoding(state, len(accepted), accepted, states)


def fill(graph: DraftGraph, rule: Rule, state: State, logits: Tensor, noise: DecodingNoise) -> list[State]:
    """Return the draft blocks that follow a state: auto-speculation, from the target distribution that led to it.

    A node of the graph is a set of pairs (i, j): the masked position of rank i, in the order in which the decoder would
    unmask them, holds its token of rank j.
    """
    order, scores = ordered(rule, state, logits, noise), _perturbed(logits, noise)
    drafts = []
    for node in graph.nodes:
        if max(i for i, _ in node) < len(order):
            draft = list(state)
            for i, j in node:
                draft[order[i]] = int(scores[order[i]].argsort(descending=True, stable=True)[j])
            drafts.append(draft)
    return drafts


def unmask(rule: Rule, state: State, logits: Tensor, noise: DecodingNoise) -> State:
    """Take one step of the decoder: the first S_t masked positions of its order get their best tokens."""
    order = ordered(rule, state, logits, noise)
    if rule.counts is not None:
        count = next(n for step, n in enumerate(rule.counts) if sum(rule.counts[step:]) == len(order))
    else:
        assert rule.threshold is not None
        probable = logits.double().softmax(dim=1).amax(dim=1)
        count = max(1, sum(float(probable[position]) >= rule.threshold for position in order))
    following, scores = list(state), _perturbed(logits, noise)
    for position in order[:count]:
        following[position] = int(scores[position].argmax())
    return following


def ordered(rule: Rule, state: State, logits: Tensor, noise: DecodingNoise) -> list[int]:
    """Return the masked positions of a state in the order in which the decoder unmasks them; ties go to the first
    position."""

    def confidence(position: int) -> float:
        chances = logits[position].double().softmax(dim=0)
        if rule.order == "max_probability":
            return float(chances.max())
        if rule.order == "entropy":
            return sum(p * math.log(p) for p in chances.tolist() if p > 0)
        if rule.order == "candidate":
            return float(chances[int(_perturbed(logits, noise)[position].argmax())])
        if rule.order == "random":
            assert noise.priority is not None
            return -float(noise.priority[0, position])
        return -position  # raster

    masked = [position for position, token in enumerate(state) if token == logits.shape[-1]]
    return sorted(masked, key=lambda position: -confidence(position))


def _perturbed(logits: Tensor, noise: DecodingNoise) -> Tensor:
    """Return the scores that rank tokens, (L, V): the largest logit plus Gumbel noise is a draw from the
    distribution."""
    return logits if noise.gumbel is None else logits + noise.gumbel[0]
