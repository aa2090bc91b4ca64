"""Intervals against scipy, published tables and their defining properties."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy.evaluation.statistics import (
    mcnemar,
    mean_interval,
    paired_mean_difference,
    paired_success_difference,
    wilson,
)

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def table(both, only_first, only_second, neither):
    """Paired outcomes with the given counts."""
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return np.array(first, bool), np.array(second, bool)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_agrees_with_scipy(counts, confidence):
    successes, n = counts
    ours = wilson(successes, n, confidence)
    theirs = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert ours.estimate == successes / n
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


@pytest.mark.parametrize("counts", ((-1, 5), (6, 5), (0, 0)))
def test_wilson_refuses_impossible_counts(counts):
    with pytest.raises(ValueError, match="expected"):
        wilson(*counts)


@pytest.mark.parametrize(
    "counts, published",
    (
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Fagerland, Lydersen & Laake 2014, data of Bentur et al. 2009
        ((14, 5, 0, 22), (0.011, 0.226)),  # Altman et al. 2000, Statistics with Confidence, table 6.2
    ),
)
def test_paired_difference_agrees_with_published_tables(counts, published):
    found = paired_success_difference(*table(*counts))
    assert (found.low, found.high) == pytest.approx(published, abs=6e-4)


@given(outcomes)
def test_paired_difference_is_antisymmetric_and_contains_its_estimate(pairs):
    first, second = np.array(pairs, bool).T
    one, other = paired_success_difference(first, second), paired_success_difference(second, first)
    assert one.estimate == pytest.approx(first.mean() - second.mean())
    assert -1 <= one.low <= one.estimate + 1e-12 and one.estimate - 1e-12 <= one.high <= 1
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)


def test_paired_difference_holds_its_level():
    """Exact coverage for 12 pairs: summed over all tables, for strongly and weakly correlated pairs."""
    n = 12
    tables = [counts for counts in itertools.product(range(n + 1), repeat=4) if sum(counts) == n]
    intervals = [paired_success_difference(*table(*counts)) for counts in tables]
    for probabilities in (
        (0.8, 0.1, 0.05, 0.05),
        (0.3, 0.2, 0.2, 0.3),
        (0.25, 0.4, 0.1, 0.25),
        (0.9, 0.02, 0.02, 0.06),
    ):
        truth = probabilities[1] - probabilities[2]
        chances = scipy.stats.multinomial(n, probabilities).pmf(tables)
        held = sum(
            chance
            for chance, interval in zip(chances, intervals, strict=True)
            if interval.low <= truth <= interval.high
        )
        assert held > 0.93


@given(outcomes)
def test_mcnemar_agrees_with_scipy(pairs):
    first, second = np.array(pairs, bool).T
    only_first, discordant = int((first & ~second).sum()), int((first != second).sum())
    expected = scipy.stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mean_interval_agrees_with_scipy():
    values = np.random.default_rng(3).exponential(2.0, 40)
    ours = mean_interval(values)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=50_000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(-1e3, 1e3))
def test_mean_interval_moves_with_its_values(values, shift):
    values = np.array(values)
    at_rest, moved = mean_interval(values), mean_interval(values + shift)
    assert at_rest.low - 1e-9 <= at_rest.estimate <= at_rest.high + 1e-9
    assert values.min() - 1e-9 <= at_rest.low and at_rest.high <= values.max() + 1e-9
    assert (moved.low, moved.high) == pytest.approx((at_rest.low + shift, at_rest.high + shift), abs=1e-6)


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 10, 50)  # easy and hard episodes
    first, second = seeds + 1 + rng.normal(0, 0.1, 50), seeds + rng.normal(0, 0.1, 50)
    paired = paired_mean_difference(first, second)
    assert 0.9 < paired.low < 1 < paired.high < 1.1
    assert mean_interval(first).high - mean_interval(first).low > 10 * (paired.high - paired.low)


@pytest.mark.parametrize("function", (paired_success_difference, paired_mean_difference, mcnemar))
def test_unpaired_values_are_refused(function):
    with pytest.raises(ValueError, match="shapes"):
        function(np.ones(3), np.ones(4))
    assert math.isfinite(mean_interval(np.ones(1)).high)
