"""Two one-sided tests: the score statistic against its definition, the level and the power against simulation."""

import functools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specpolicy.evaluation.equivalence import both_reject, equivalence, score
from specpolicy.evaluation.power import (
    episodes_for_equivalence,
    equivalence_power,
    sample_size_note,
    smallest_difference,
)
from specpolicy.evaluation.statistics import mcnemar

counts = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 60))


def outcomes(only_first, only_second, rest):
    """Paired outcomes with the given counts."""
    first = np.array([True] * only_first + [False] * only_second + [True] * rest)
    second = np.array([False] * only_first + [True] * only_second + [True] * rest)
    return first, second


def simulate(rate, other, n, seed=0, repeats=1500):
    """Pairs of independent outcomes with the given rates."""
    rng = np.random.default_rng(seed)
    return zip(rng.random((repeats, n)) < rate, rng.random((repeats, n)) < other, strict=True)


@functools.cache
def shown(only_first, only_second, n, margin):
    """Whether the test calls these counts equal."""
    return equivalence(*outcomes(only_first, only_second, n - only_first - only_second), margin).equivalent


def verdict(first, second, margin):
    """The same of outcomes, of which many have the same counts."""
    return shown(int((first & ~second).sum()), int((~first & second).sum()), len(first), margin)


@settings(max_examples=60, deadline=None)
@given(counts, st.floats(-0.6, 0.6))
def test_the_score_uses_the_most_likely_rates_under_the_hypothesis(table, difference):
    only_first, only_second, rest = table
    n = only_first + only_second + rest
    low, high = max(0.0, -difference), (1 - difference) / 2

    def surprise(rate):
        cells = (only_first, rate + difference), (only_second, rate), (rest, 1 - 2 * rate - difference)
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    rate = scipy.optimize.minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * rate + difference * (1 - difference))
    if variance < 1e-3:
        return
    expected = (only_first - only_second - n * difference) / math.sqrt(variance)
    assert score(only_first, only_second, n, difference) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(counts, st.floats(0.02, 0.5))
def test_the_interval_and_the_tests_say_the_same(table, margin):
    found = equivalence(*outcomes(*table), margin)
    assert found.low <= (table[0] - table[1]) / sum(table) <= found.high
    assert found.p_no_loss <= found.p_value
    if abs(found.p_value - 0.05) > 1e-6:
        assert found.equivalent == (-margin < found.low and found.high < margin)
        assert not found.equivalent or found.no_loss


@given(counts, st.floats(0.02, 0.5))
@example((0, 15, 15), 1 / 3)
def test_swapping_the_conditions_mirrors_the_interval(table, margin):
    one, other = equivalence(*outcomes(*table), margin), equivalence(*outcomes(table[1], table[0], table[2]), margin)
    # Near a double root of Tango's quadratic rounding leaves half of the digits: 1e-8 of the rate.
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-7)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-7)


def test_without_a_differing_pair_the_number_of_pairs_decides():
    solved = np.ones(100, bool)
    assert equivalence(solved, solved, 0.05).p_value == pytest.approx(0.0109, abs=2e-4)  # z = sqrt(n m / (1 - m))
    assert not equivalence(solved[:40], solved[:40], 0.05).equivalent


def test_a_difference_as_large_as_the_margin_is_rarely_called_equal():
    assert np.mean([verdict(*pairs, 0.1) for pairs in simulate(0.8, 0.9, 300)]) < 0.065


@given(counts, st.floats(0.02, 0.5))
def test_many_verdicts_at_once_are_those_of_the_test(table, margin):
    n, several = sum(table), np.arange(table[0] + 1)
    expected = [shown(one, table[1], n, margin) for one in several.tolist()]
    assert both_reject(several, np.array(table[1]), n, margin).tolist() == expected


@pytest.mark.parametrize("success", (0.99, 0.95, 0.9))
def test_the_announced_sample_size_shows_equality_as_often_as_announced(success):
    """Simulated episodes; off by four standard errors in one of 16,000 runs, were the power what it is said to be."""
    n, repeats = episodes_for_equivalence(0.05, success), 4000
    expected = equivalence_power(n, 0.05, success)
    found = [verdict(*pairs, 0.05) for pairs in simulate(success, success, n, repeats=repeats)]
    assert 0.8 <= expected < 0.85
    assert np.mean(found) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / repeats))


@pytest.mark.parametrize("n, success, margin", ((68, 0.99, 0.05), (117, 0.99, 0.05), (118, 0.99, 0.05), (40, 0.6, 0.3)))
def test_the_power_is_the_sum_over_all_that_is_shown(n, success, margin):
    """All counts, one by one, with their trinomial probability."""
    rate = success * (1 - success)
    tables = [(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a) if a + b < 30]
    chances = scipy.stats.multinomial(n, (rate, rate, 1 - 2 * rate)).pmf(tables)
    power = sum(chance for chance, (a, b, _) in zip(chances, tables, strict=True) if shown(a, b, n, margin))
    left_out = 1 - chances.sum()
    assert equivalence_power(n, margin, success) == pytest.approx(power, abs=left_out + 1e-6)


def test_the_announced_number_is_the_one_from_on_which_the_power_suffices():
    """Where few pairs differ the power goes up and down; no larger number may fall short."""
    for success, margin in ((0.99, 0.05), (0.95, 0.05), (0.9, 0.1), (0.995, 0.03)):
        needed = episodes_for_equivalence(margin, success)
        assert equivalence_power(needed - 1, margin, success) < 0.8
        assert min(equivalence_power(n, margin, success) for n in range(needed, 2 * needed)) >= 0.8


def test_the_power_of_very_many_episodes_is_summed_over_a_part_of_the_counts():
    """There the normal approximation is right: both tests are symmetric, and each must reject."""
    n, success, margin = 2_000_000, 0.5, 0.0016
    distance = margin / math.sqrt(2 * success * (1 - success) / n)
    normal = scipy.stats.norm
    assert equivalence_power(n, margin, success) == pytest.approx(
        2 * normal.cdf(distance - normal.ppf(0.95)) - 1, abs=0.02
    )


@pytest.mark.parametrize("n, success", ((60, 0.9), (200, 0.7)))
def test_the_announced_difference_is_seen_as_often_as_announced(n, success):
    difference = smallest_difference(n, success)
    seen = [mcnemar(first, second) < 0.05 for first, second in simulate(success, success - difference, n, repeats=600)]
    assert 0.7 < np.mean(seen) < 0.88  # the exact test is a little more cautious than the approximation


def test_more_episodes_see_smaller_differences():
    seen = [smallest_difference(n, 0.9) for n in (20, 50, 200, 1000)]
    assert seen == sorted(seen, reverse=True) and seen[-1] < 0.05
    assert smallest_difference(2, 0.9) is None


def test_the_note_states_what_to_expect():
    note = sample_size_note(700, 0.9, 0.05)
    assert note.startswith("700 episodes of each condition") and "about 626, which is given" in note
    assert "more than are played" in sample_size_note(50, 0.9, 0.05)
    assert "no difference is sure to be seen" in sample_size_note(2, 0.9, 0.05)


@pytest.mark.parametrize("margin", (0.0, 1.0, -0.1))
def test_impossible_margins_are_refused(margin):
    with pytest.raises(ValueError, match="margin"):
        equivalence(np.ones(3, bool), np.ones(3, bool), margin)
    with pytest.raises(ValueError, match="success rate"):
        smallest_difference(10, 1.0)
    with pytest.raises(ValueError, match="success rate"):
        episodes_for_equivalence(0.05, 0.0)
    with pytest.raises(ValueError, match="shapes"):
        equivalence(np.ones(3, bool), np.ones(4, bool), 0.05)
