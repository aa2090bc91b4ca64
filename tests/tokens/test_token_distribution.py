"""The distribution of sampled decoders, against exact enumeration: three positions, three tokens."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from toy_tokens import ToyNetwork, any_order_distribution, confidence_distribution, uniform_source

from specpolicy.tokens.graph import GraphDrafter, analytic_graph
from specpolicy.tokens.lookahead import FixedPointDrafter
from specpolicy.tokens.ordinary import decode, masked_start
from specpolicy.tokens.rules import Rule
from specpolicy.tokens.speculative import speculate

COUNT, SIGNIFICANT = 30_000, 1e-4
NETWORK = ToyNetwork(3, 3, seed=3)


def histogram(rule, drafter=None, seed=0):
    """How often each of the 27 chunks came out."""
    noise, start = rule.draw_noise(3, uniform_source(COUNT, seed)), masked_start(COUNT, 3, 3)
    if drafter is None:
        tokens = decode(NETWORK, rule, noise, start, 3).tokens
    else:
        tokens = speculate(NETWORK, rule, drafter, noise, start, 3).tokens
    return torch.bincount(tokens[:, 0] * 9 + tokens[:, 1] * 3 + tokens[:, 2], minlength=27).numpy()


def p_value(found, distribution):
    """Of a chi-square test; chunks that are expected less than five times count as one."""
    expected = distribution.numpy() / float(distribution.sum()) * COUNT
    rare = expected < 5
    if rare.any():
        found, expected = (np.append(counts[~rare], counts[rare].sum()) for counts in (found, expected))
    return chisquare(found, expected).pvalue


@pytest.mark.parametrize("keyed", ("position", "step"))
def test_a_pre_drawn_order_draws_the_any_order_distribution(keyed):
    rule = Rule(3, (1, 1, 1), order="random", keyed=keyed)
    assert p_value(histogram(rule), any_order_distribution(NETWORK)) > SIGNIFICANT


def test_so_do_fixed_point_drafts():
    rule = Rule(3, (1, 1, 1), order="random")
    assert p_value(histogram(rule, FixedPointDrafter(3), seed=1), any_order_distribution(NETWORK)) > SIGNIFICANT


@pytest.mark.parametrize("keyed", ("position", "step"))
def test_the_most_confident_position_first_draws_its_own_distribution(keyed):
    rule = Rule(3, (1, 1, 1), keyed=keyed)
    assert p_value(histogram(rule), confidence_distribution(NETWORK)) > SIGNIFICANT
    assert p_value(histogram(rule), any_order_distribution(NETWORK)) < SIGNIFICANT  # and no other


def test_so_do_drafts_from_a_graph():
    drafter = GraphDrafter({3: analytic_graph(Rule(3, (1, 1, 1)), 3, 5)})
    assert p_value(histogram(Rule(3, (1, 1, 1)), drafter, seed=2), confidence_distribution(NETWORK)) > SIGNIFICANT


def test_with_candidate_confidence_the_key_of_the_noise_makes_two_decoders():
    """The order reads the noise there: a position that was passed over keeps its unlikely token, or draws again."""
    by_position, by_step = (histogram(Rule(3, (1, 1, 1), order="candidate", keyed=key)) for key in ("position", "step"))
    drawn = (by_position + by_step) > 0  # what neither ever draws tells nothing
    assert chi2_contingency([by_position[drawn], by_step[drawn]]).pvalue < 1e-6
