"""Spiffy as its paper states it: against the fast decoder, call by call; by itself, its tokens and distribution."""

import pytest
import torch
from scipy.stats import chisquare
from toy_tokens import ToyNetwork, any_order_distribution, confidence_distribution, uniform_source

from specpolicy.tokens import (
    DecodingNoise,
    DraftGraph,
    GraphDrafter,
    Rule,
    analytic_graph,
    cosine_counts,
    decode,
    fixed_counts,
    masked_start,
    speculate,
)
from specpolicy.tokens import reference as literal

L, V, CHUNKS = 6, 4, 40
NETWORK = ToyNetwork(L, V, seed=1, scale=0.7, shared=3.0, chunks=CHUNKS)
RULES = {
    "one at a time": Rule(L, fixed_counts(L, 1)),
    "greedy": Rule(L, fixed_counts(L, 1), sampled=False),
    "entropy, two at a time": Rule(L, fixed_counts(L, 2), order="entropy"),
    "candidate": Rule(L, fixed_counts(L, 1), order="candidate"),
    "cosine": Rule(L, cosine_counts(L, 5)),
    "threshold": Rule(L, None, threshold=0.7),
    "random order": Rule(L, fixed_counts(L, 1), order="random"),
    "raster, four at a time": Rule(L, fixed_counts(L, 4), order="raster"),
}
# A child of two parents, second-best tokens, a place that is taken out of its turn.
GRAPH = DraftGraph((((0, 0),), ((1, 0),), ((0, 1),), ((0, 0), (1, 0)), ((0, 0), (2, 0)), ((0, 0), (1, 0), (2, 1))))


def of_chunk(noise, chunk):
    """The noise of one chunk."""
    return DecodingNoise(
        *(None if part is None else part[chunk : chunk + 1] for part in (noise.gumbel, noise.priority))
    )


def seen_by(chunk):
    """The toy network at one observation."""
    return lambda states: NETWORK(states, torch.full((len(states),), chunk))


@pytest.mark.parametrize("graph", (GRAPH, analytic_graph(RULES["one at a time"], L, 12)), ids=("by hand", "analytic"))
@pytest.mark.parametrize("name", RULES)
def test_the_fast_decoder_follows_the_paper_call_by_call(name, graph):
    rule = RULES[name]
    noise, start = rule.draw_noise(V, uniform_source(CHUNKS, 0)), masked_start(CHUNKS, L, V)
    fast = speculate(NETWORK, rule, GraphDrafter({L: graph}), noise, start, V, keep_paths=True)
    for chunk in range(CHUNKS):
        slow = literal.spiffy(seen_by(chunk), rule, of_chunk(noise, chunk), graph, V)
        accepted = [int(row[chunk]) for row in fast.accepted if row[chunk] >= 0]
        assert (slow.tokens, slow.calls) == (fast.tokens[chunk].tolist(), int(fast.calls[chunk]))
        assert slow.accepted == accepted
        assert slow.states == [state.tolist() for state in fast.paths[chunk]]
    if len(rule.counts or ()) == L:
        assert fast.calls.sum() < 0.9 * CHUNKS * L  # drafts were accepted


@pytest.mark.parametrize("name", RULES)
def test_drafts_change_no_token_and_the_logits_of_another_state_do(name):
    """Against the ordinary decoder; and with the distributions of draft blocks mixed up."""
    rule = RULES[name]
    noise, start = rule.draw_noise(V, uniform_source(CHUNKS, 1)), masked_start(CHUNKS, L, V)
    ordinary = decode(NETWORK, rule, noise, start, V).tokens.tolist()

    def mixed_up(network):
        return lambda states: torch.cat([network(states[:1]), network(states[1:]).flip(0)])

    found, wrong = (
        [
            literal.spiffy(change(seen_by(chunk)), rule, of_chunk(noise, chunk), GRAPH, V).tokens
            for chunk in range(CHUNKS)
        ]
        for change in (lambda network: network, mixed_up)
    )
    assert found == ordinary
    if len(rule.counts or ()) == L and rule.order != "raster":
        assert wrong != ordinary


def test_its_tokens_have_the_distribution_of_the_target():
    """3,000 chunks of three positions against exact enumeration, chi-square, false alarm 1e-4; that of another order is
    found out."""
    count, network = 3_000, ToyNetwork(3, 3, seed=3)
    rule, graph = Rule(3, (1, 1, 1)), DraftGraph((((0, 0),), ((0, 0), (1, 0))))
    noise = rule.draw_noise(3, uniform_source(count, 4))

    def logits(states):
        return network(states, None)

    found = torch.zeros(3, 3, 3)
    for chunk in range(count):
        found[tuple(literal.spiffy(logits, rule, of_chunk(noise, chunk), graph, 3).tokens)] += 1

    def p_value(distribution):
        expected = distribution / distribution.sum() * count
        rare = expected < 5  # these chunks count as one
        groups = [torch.cat([part[~rare], part[rare].sum()[None]]) for part in (found.flatten().double(), expected)]
        seen, wanted = (group[: None if rare.any() else -1].numpy() for group in groups)
        return chisquare(seen, wanted).pvalue

    assert p_value(confidence_distribution(network)) > 1e-4
    assert p_value(any_order_distribution(network)) < 1e-4
