"""Decoders as rules: which positions, which tokens, and what is refused."""

import itertools
import math

import pytest
import torch
from toy_tokens import ToyNetwork, uniform_source

from specpolicy import SpecpolicyError
from specpolicy.tokens.ordinary import decode, masked_start
from specpolicy.tokens.rules import ORDERS, PRE_DRAWN, DecodingNoise, Rule, cosine_counts, fixed_counts

OWNER = torch.zeros(1, dtype=torch.int64)


def decide(rule, logits, state, noise=None):
    return rule.decide(torch.tensor([logits]), torch.tensor([state]), noise or DecodingNoise(), OWNER)


def test_counts_cover_the_chunk():
    assert fixed_counts(7, 3) == (3, 3, 1)
    assert fixed_counts(6, 3) == (3, 3)
    for length in (3, 32, 56, 112):
        for steps in (1, 2, 5, 12, 200):
            counts = cosine_counts(length, steps)
            assert sum(counts) == length and min(counts) >= 1


def test_rounding_leaves_empty_steps_in_a_cosine_schedule_and_they_are_not_counted():
    assert len(cosine_counts(56, 12)) == 11
    assert cosine_counts(56, 12)[-1] > cosine_counts(56, 12)[0]


def test_the_most_confident_masked_position_is_revealed():
    rule = Rule(3, fixed_counts(3, 1), sampled=False)
    decision = decide(rule, [[0.0, 9.0], [0.0, 1.0], [2.0, 0.0]], [1, 2, 2])
    assert decision.following.tolist() == [[1, 2, 0]]
    assert decision.gap.item() == pytest.approx(
        torch.tensor([2.0, 0]).log_softmax(0)[0] - torch.tensor([1.0, 0]).log_softmax(0)[0]
    )


def test_of_equal_positions_and_of_equal_tokens_the_first_wins():
    rule = Rule(3, fixed_counts(3, 1), sampled=False)
    decision = decide(rule, [[1.0, 1.0]] * 3, [2, 2, 2])
    assert decision.following.tolist() == [[0, 2, 2]]
    assert decision.gap.item() == 0


def test_a_threshold_reveals_all_that_reach_it_and_always_one():
    rule = Rule(3, None, threshold=0.7, sampled=False)
    sure, unsure = [0.0, 3.0], [0.0, 0.1]
    assert decide(rule, [sure, unsure, sure], [2, 2, 2]).following.tolist() == [[1, 2, 1]]
    assert decide(rule, [unsure, unsure, [0.0, 0.2]], [2, 2, 2]).following.tolist() == [[2, 2, 1]]
    assert decide(rule, [sure, sure, sure], [0, 2, 2]).following.tolist() == [[0, 1, 1]]


def gap(rule, logits, state, noise=None):
    return decide(rule, logits, state, noise).gap.item()


@pytest.mark.parametrize("order", PRE_DRAWN)
def test_near_ties_of_a_pre_drawn_order_are_those_of_its_tokens(order):
    rule, noise = Rule(2, (1, 1), order=order, sampled=False), DecodingNoise(priority=torch.tensor([[0, 1]]))
    assert gap(rule, [[0.0, 0.25], [0.0, 0.125]], [2, 2], noise) == 0.25  # the second position is not revealed yet
    assert gap(rule, [[0.0, 0.25], [0.0, 0.125]], [1, 2], noise) == 0.125


def test_a_near_tie_of_two_tokens_is_seen_in_the_perturbed_logits():
    noise = DecodingNoise(gumbel=torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]))
    logits = [[0.0, 2.0625], [0.0, 1.0]]
    assert gap(Rule(2, (1, 1)), logits, [2, 2], noise) == 0.0625
    assert gap(Rule(2, (1, 1), sampled=False), logits, [2, 2]) > 0.0625


def test_with_candidate_confidence_the_tokens_of_all_masked_positions_matter():
    """The token that is nearly chosen at the position passed over would have made that position the most confident."""
    noise = DecodingNoise(gumbel=torch.tensor([[[0.0, 0.0], [9.0625, 0.0]]]))
    rule, logits = Rule(2, (1, 1), order="candidate"), [[0.0, 1.0], [0.0, 9.0]]
    assert decide(rule, logits, [2, 2], noise).following.tolist() == [[1, 2]]
    assert gap(rule, logits, [2, 2], noise) == 0.0625


def test_a_probability_next_to_the_threshold_is_a_near_tie():
    rule = Rule(3, None, threshold=0.7, sampled=False)
    edge = math.log(0.7 / 0.3)  # the difference of logits at which a probability is the threshold
    near, sure = [0.0, edge + 1e-4], [0.0, 5.0]
    assert gap(rule, [sure, near, sure], [2, 2, 2]) < 1e-4
    assert gap(rule, [near, near, sure], [1, 1, 2]) == 5.0  # the last position is revealed in any case
    assert gap(rule, [near, sure, sure], [2, 1, 1]) == pytest.approx(edge + 1e-4)


def test_where_nothing_is_masked_there_is_no_choice():
    assert gap(Rule(2, (1, 1), sampled=False), [[0.0, 1.0]] * 2, [0, 1]) == math.inf


def test_noise_changes_the_token_and_with_candidate_confidence_the_order():
    noise = DecodingNoise(gumbel=torch.tensor([[[5.0, 0.0], [0.0, 0.0]]]))
    logits = [[0.0, 2.0], [0.0, 1.0]]
    assert decide(Rule(2, (1, 1)), logits, [2, 2], noise).following.tolist() == [[0, 2]]
    assert decide(Rule(2, (1, 1), order="candidate"), logits, [2, 2], noise).following.tolist() == [[2, 1]]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("counts", [fixed_counts(5, 1), fixed_counts(5, 2), cosine_counts(5, 4)])
def test_every_order_reveals_every_position_once(order, counts):
    network, rule = ToyNetwork(5, 3), Rule(5, counts, order=order)
    noise = rule.draw_noise(3, uniform_source(40, 0))
    out = decode(network, rule, noise, masked_start(40, 5, 3), 3, keep_paths=True)
    assert (out.calls == len(counts)).all()
    for path in out.paths:
        masked = [int((state == 3).sum()) for state in path]
        assert masked == [sum(counts[step:]) for step in range(len(counts) + 1)]
        for before, after in itertools.pairwise(path):
            assert (after[before != 3] == before[before != 3]).all()


@pytest.mark.parametrize(
    "options",
    [
        dict(counts=(1, 1), order="best"),
        dict(counts=(1, 1), keyed="chunk"),
        dict(counts=None),
        dict(counts=(1, 1), threshold=0.5),
        dict(counts=(1, 2)),
        dict(counts=None, threshold=0.5, order="random"),
        dict(counts=None, threshold=0.5, keyed="step"),
    ],
)
def test_rules_that_make_no_sense_are_refused(options):
    with pytest.raises(SpecpolicyError):
        Rule(2, **options)


def test_logits_that_are_no_numbers_are_refused():
    rule = Rule(2, (1, 1), sampled=False)
    with pytest.raises(SpecpolicyError, match="not finite"):
        decode(lambda states, owner: torch.full((1, 2, 3), torch.nan), rule, DecodingNoise(), masked_start(1, 2, 3), 3)
