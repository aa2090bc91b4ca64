"""Lossless means the same tokens, in the same order: for the same noise, with any drafts. And the tests can fail.

The toy network evaluates row by row, so logits do not depend on the batch. `test_token_policy.py` repeats this with a
transformer.
"""

import dataclasses

import pytest
import torch
from toy_tokens import ToyNetwork, uniform_source

from specpolicy import SpecpolicyError
from specpolicy.tokens import speculative as speculation
from specpolicy.tokens.graph import DraftGraph, GraphDrafter, analytic_graph
from specpolicy.tokens.lookahead import ChainDrafter, FixedPointDrafter
from specpolicy.tokens.ordinary import decode, masked_start
from specpolicy.tokens.rules import PRE_DRAWN, DecodingNoise, Rule, cosine_counts, fixed_counts
from specpolicy.tokens.speculative import speculate

L, V, CHUNKS = 6, 4, 1_000
NETWORK = ToyNetwork(L, V, seed=1, scale=0.7, shared=3.0, chunks=CHUNKS)
SCHEDULES = {
    "one": dict(counts=fixed_counts(L, 1)),
    "four": dict(counts=fixed_counts(L, 4)),
    "cosine": dict(counts=cosine_counts(L, 5)),
    "threshold": dict(counts=None, threshold=0.7),
}
ORDERS = ("max_probability", "entropy", "candidate", "random", "raster")
DECODERS = [
    Rule(L, order=order, sampled=sampled, keyed=keyed, **schedule)
    for name, schedule in SCHEDULES.items()
    for order in (ORDERS if name != "threshold" else ORDERS[:1])
    for sampled, keyed in ((False, "position"), (True, "position"), (True, "step"))
    if not (name == "threshold" and keyed == "step")
]


def describe(rule):
    schedule = rule.threshold or "-".join(map(str, rule.counts))
    return f"{rule.order}-{schedule}-{rule.keyed if rule.sampled else 'greedy'}"


class RandomDrafter:
    """States that have nothing to do with anything, mixed with states of other chunks."""

    def __init__(self, drafts, seed=0):
        self.drafts, self.generator = drafts, torch.Generator().manual_seed(seed)

    def draft(self, round):
        owner = round.chunks.repeat_interleave(self.drafts)
        states = round.roots.repeat_interleave(self.drafts, dim=0)
        filled = torch.randint(round.vocabulary, states.shape, generator=self.generator)
        states = torch.where(torch.rand(states.shape, generator=self.generator) < 0.4, filled, states)
        states[:, 0] = round.vocabulary  # something is masked still
        return states, owner[torch.randperm(len(owner), generator=self.generator)]


class PermutedDrafter:
    """Another drafter's drafts in another order."""

    def __init__(self, inner):
        self.inner, self.generator = inner, torch.Generator().manual_seed(0)

    def draft(self, round):
        states, owner = self.inner.draft(round)
        order = torch.randperm(len(owner), generator=self.generator)
        return states[order], owner[order]


def random_graph(seed, nodes=12):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(nodes):
        size = int(torch.randint(1, L, (), generator=generator))
        places = torch.randperm(L, generator=generator)[:size].sort().values.tolist()
        found.append(tuple((place, int(torch.randint(V, (), generator=generator))) for place in places))
    return DraftGraph(tuple(found))


def graphs(rule, drafts=8):
    return {masked: analytic_graph(rule, masked, drafts) for masked in range(1, L + 1)}


def drafters(rule):
    found = {"chain": ChainDrafter(4), "random": RandomDrafter(3)}
    if not (rule.sampled and rule.keyed == "step"):
        found["graph"] = GraphDrafter(graphs(rule))
        found["pruned"] = GraphDrafter(graphs(rule, 12), keep=3)
        found["random graph"] = GraphDrafter({L: random_graph(1)})
        found["permuted"] = PermutedDrafter(GraphDrafter(graphs(rule)))
    if rule.order in PRE_DRAWN:
        found["fixed point"] = FixedPointDrafter(L)
        found["permuted chain"] = PermutedDrafter(ChainDrafter(3))
    return found


def same(first, second):
    """Whether tokens and every state on the way are equal."""
    if first.paths is None:
        return torch.equal(first.tokens, second.tokens)
    return torch.equal(first.tokens, second.tokens) and all(
        len(mine) == len(other) and all(map(torch.equal, mine, other))
        for mine, other in zip(first.paths, second.paths, strict=True)
    )


def pair(rule, drafter, network, count=100, changed=None, seed=0, paths=True):
    """The ordinary decoder's chunks and the speculative one's, which may be given a changed rule or noise."""
    noise, start = rule.draw_noise(V, uniform_source(count, seed)), masked_start(count, L, V)
    expected = decode(network, rule, noise, start, V, keep_paths=paths)
    rule, noise = (rule, noise) if changed is None else changed(rule, noise)
    return expected, speculate(network, rule, drafter, noise, start, V, keep_paths=paths)


@pytest.mark.parametrize("rule", DECODERS, ids=describe)
def test_drafts_change_nothing(rule):
    for name, drafter in drafters(rule).items():
        assert same(*pair(rule, drafter, NETWORK)), name
        expected, found = pair(rule, drafter, NETWORK, CHUNKS, paths=False)
        assert same(expected, found), name
        assert (found.calls <= expected.calls).all(), name
        assert (sum(row.clamp(min=0) for row in found.accepted) + found.calls == expected.calls).all(), name
        if name in ("chain", "graph", "fixed point") and len(rule.counts or ()) == L:
            assert found.calls.sum() < 0.8 * expected.calls.sum(), name


@pytest.mark.parametrize("order", ORDERS)
def test_where_many_logits_are_equal_nothing_changes_either(order):
    network, rule = (
        ToyNetwork(L, V, seed=2, ties=True, chunks=CHUNKS),
        Rule(L, fixed_counts(L, 1), order=order, sampled=False),
    )
    for drafter in drafters(rule).values():
        assert same(*pair(rule, drafter, network))


def test_tokens_of_a_large_vocabulary_are_told_apart():
    """A drafted token that is 65536 less than the true one is another token."""
    large, length = 65_600, 3
    rule = Rule(length, (1, 1, 1), order="raster", sampled=False)

    def network(states, owner):
        """Tokens 1 and 65540, then 7 if the one before is what it should be."""
        follows = torch.where(states[:, 1] == 65540, 7, 11)
        best = torch.stack([torch.full_like(follows, 1), torch.full_like(follows, 65540), follows], dim=1)
        return torch.zeros(*states.shape, large).scatter(2, best[..., None], 1.0)

    class Mistaken:
        def draft(self, round):
            drafts = round.roots.clone()
            drafts[:, 1] = 4
            return drafts, round.chunks

    start = masked_start(1, length, large)
    assert decode(network, rule, DecodingNoise(), start, large).tokens.tolist() == [[1, 65540, 7]]
    assert speculate(network, rule, Mistaken(), DecodingNoise(), start, large).tokens.tolist() == [[1, 65540, 7]]


def test_forbidden_tokens_may_have_the_least_finite_logits():
    """Their sum would be infinite."""

    def network(states, owner):
        logits = torch.zeros(*states.shape, V)
        logits[..., 0] = torch.finfo(torch.float32).min
        logits[..., 2] = 1.0
        return logits

    rule = Rule(L, counts=fixed_counts(L, 2), sampled=False)
    found = decode(network, rule, DecodingNoise(), masked_start(1, L, V), V)
    assert found.tokens.tolist() == [[2] * L]


def test_chunks_do_not_know_of_each_other():
    rule, drafter = Rule(L, fixed_counts(L, 1)), GraphDrafter(graphs(Rule(L, fixed_counts(L, 1))))
    noise = rule.draw_noise(V, uniform_source(20, 0))
    together = speculate(NETWORK, rule, drafter, noise, masked_start(20, L, V), V)
    for chunk in range(20):

        def network(states, owner, chunk=chunk):
            return NETWORK(states, owner + chunk)

        alone = speculate(network, rule, drafter, DecodingNoise(noise.gumbel[[chunk]]), masked_start(1, L, V), V)
        assert torch.equal(alone.tokens[0], together.tokens[chunk])
        assert (alone.calls[0], alone.rows[0]) == (together.calls[chunk], together.rows[chunk])


def test_rows_count_every_state_that_was_evaluated():
    rule, evaluated = Rule(L, fixed_counts(L, 1)), []

    def counting(states, owner):
        evaluated.append(len(states))
        return NETWORK(states, owner)

    noise = rule.draw_noise(V, uniform_source(7, 0))
    out = speculate(counting, rule, ChainDrafter(3), noise, masked_start(7, L, V), V)
    assert out.rows.sum() == sum(evaluated) and out.calls.max() == len(evaluated)


def test_a_graph_needs_noise_that_is_keyed_by_position():
    rule = Rule(L, fixed_counts(L, 1), keyed="step")
    with pytest.raises(SpecpolicyError, match="keyed by position"):
        pair(rule, GraphDrafter(graphs(rule)), NETWORK, count=2)


# What must be noticed: each of these makes the speculative decoder wrong in one way.


def fails(rule, drafter, network=None, changed=None):
    return not same(*pair(rule, drafter, network or NETWORK, changed=changed))


RULE = Rule(L, fixed_counts(L, 1))


def test_the_noise_of_another_chunk_is_noticed():
    def other(rule, noise):
        return rule, DecodingNoise(noise.gumbel.roll(1, dims=0))

    assert fails(RULE, GraphDrafter(graphs(RULE)), changed=other)


class OthersNoiseForDrafts(Rule):
    """A rule that gives each draft, and no root, the noise of the next chunk: roots come first, a chunk each."""

    def decide(self, logits, states, noise, owner):
        owners = owner.tolist()
        seen = [chunk in owners[:row] for row, chunk in enumerate(owners)]
        return super().decide(logits, states, noise, torch.where(torch.tensor(seen), (owner + 1) % 100, owner))


def test_the_noise_of_another_chunk_in_draft_rows_alone_is_noticed():
    def other(rule, noise):
        return OthersNoiseForDrafts(L, rule.counts), noise

    assert fails(RULE, GraphDrafter(graphs(RULE)), changed=other)


def test_the_noise_of_another_step_is_noticed():
    def other(rule, noise):
        return rule, DecodingNoise(noise.gumbel.roll(1, dims=1))

    assert fails(dataclasses.replace(RULE, keyed="step"), ChainDrafter(4), changed=other)


def test_acceptance_on_tokens_without_their_positions_is_noticed(monkeypatch):
    def unplaced(states):
        return [bytes(sorted(row.tolist())) for row in states]

    monkeypatch.setattr(speculation, "state_keys", unplaced)
    assert fails(RULE, GraphDrafter(graphs(RULE)))


def test_the_logits_of_an_unequal_state_are_noticed(monkeypatch):
    def by_size(states):
        return [int((row == V).sum()) for row in states]

    monkeypatch.setattr(speculation, "state_keys", by_size)
    assert fails(RULE, GraphDrafter(graphs(RULE)))


def test_the_logits_of_another_chunks_state_are_noticed(monkeypatch):
    follow = speculation._follow
    monkeypatch.setattr(speculation, "_follow", lambda rows, owner, *rest: follow(rows, owner * 0, *rest))
    assert fails(RULE, GraphDrafter(graphs(RULE)))


class LastOfEqual(Rule):
    """A rule that reveals the last of equal positions first."""

    def decide(self, logits, states, noise, owner):
        flipped = super().decide(logits.flip(1), states.flip(1), noise, owner)
        return dataclasses.replace(flipped, following=flipped.following.flip(1))


def test_the_tie_break_reversed_is_noticed():
    rule = Rule(L, fixed_counts(L, 1), sampled=False)

    def other(rule, noise):
        return LastOfEqual(L, rule.counts, sampled=False), noise

    assert fails(rule, RandomDrafter(3), ToyNetwork(L, V, seed=2, ties=True, chunks=CHUNKS), changed=other)
