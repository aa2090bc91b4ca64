"""The ordinary decoder: one network call per step. Drafts must not change one token of its output."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.tokens.rules import Decision, DecodingNoise, Rule

Network = Callable[[Tensor, Tensor], Tensor]  # (states (N, L), chunks they belong to (N,)) -> logits (N, L, V)
Observer = Callable[[Tensor, Tensor, Decision], object]  # called with (states, owner, decision) of each call


@dataclass
class Decoded:
    """Decoded chunks.

    Attributes:
        tokens: (B, L).
        calls: (B,) sequential network calls.
        rows: (B,) states evaluated.
        accepted: one (B,) tensor per call with its accepted drafts, -1 for finished chunks.
        paths: for each chunk its states, from the masked one on, if asked for.
    """

    tokens: Tensor
    calls: Tensor
    rows: Tensor
    accepted: list[Tensor] = field(default_factory=list)
    paths: list[list[Tensor]] | None = None


def masked_start(batch: int, length: int, vocabulary: int, device: torch.device | str = "cpu") -> Tensor:
    """States (B, L) in which every position is masked."""
    return torch.full((batch, length), vocabulary, dtype=torch.int64, device=device)


def evaluate(network: Network, states: Tensor, owner: Tensor) -> Tensor:
    """Return the checked logits of the states.

    Raises:
        SpecpolicyError: NaN or infinity, which make comparisons of logits meaningless.
    """
    logits = network(states, owner)
    if not bool(torch.isfinite(logits).all()):
        raise SpecpolicyError("the network returned logits that are not finite: check the weights and the observation")
    return logits


def decode(
    network: Network,
    rule: Rule,
    noise: DecodingNoise,
    start: Tensor,
    vocabulary: int,
    observe: Observer | None = None,
    keep_paths: bool = False,
) -> Decoded:
    """Decode the chunks `start` (B, L) until nothing is masked. `observe` receives every call and its decision."""
    states, batch = start.clone(), len(start)
    calls = torch.zeros(batch, dtype=torch.int64)
    paths = [[state] for state in states.clone()]
    while True:
        active = (states == vocabulary).any(dim=1).nonzero().flatten()
        if not len(active):
            break
        current = states[active]
        decision = rule.decide(evaluate(network, current, active), current, noise, active)
        if observe is not None:
            observe(current, active, decision)
        states[active] = decision.following
        calls[active.cpu()] += 1
        if keep_paths:
            for chunk in active.tolist():
                paths[chunk].append(states[chunk].clone())
    return Decoded(states, calls, calls.clone(), paths=paths if keep_paths else None)
