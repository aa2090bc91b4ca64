"""Limits of range and rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy.control.limits import Limits
from specpolicy.errors import SpecpolicyError

SECONDS = 0.1
DTYPES = ("float16", "float32", "float64", ">f4", "int64", "int8", "uint8", "bool")
numbers = st.one_of(
    st.floats(-50, 50),
    st.floats(-1e308, 1e308),
    st.sampled_from((0.0, 0.1, -0.1, 1e-300, 5e-324, 1 / 3, 65504.0, 1e38, -1e300)),
)


def excess(action, previous, rate):
    """By how much more than the rate allows an action differs from the one before, exactly as float64 sees it."""
    with np.errstate(over="ignore"):
        return np.abs(action.astype(np.float64) - np.asarray(previous, np.float64)) - rate * SECONDS


@settings(derandomize=True, max_examples=300)
@given(
    start=st.tuples(numbers, numbers),
    wanted=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6),
    dtype=st.sampled_from(DTYPES),
    rate=st.one_of(st.floats(1e-12, 1e3), st.sampled_from((1e-320, 1e300, np.inf))),
    bounds=st.tuples(numbers, numbers).map(sorted),
    ranged=st.booleans(),
)
def test_no_sequence_of_actions_leaves_the_limits(start, wanted, dtype, rate, bounds, ranged):
    low, high = bounds if ranged else (-np.inf, np.inf)
    limits = Limits(low=low, high=high, rate=rate)
    previous = np.array(start)
    for values in wanted:
        with np.errstate(all="ignore"):
            action = np.nan_to_num(np.array(values).astype(dtype))
        allowed = limits.apply(action, previous, SECONDS)
        assert np.isfinite(allowed).all() and allowed.shape == (2,) and allowed.dtype.kind == "f"
        assert (excess(allowed, previous, rate) <= 0).all()
        for before, after in zip(previous, allowed.astype(np.float64), strict=True):
            if low <= before <= high:
                assert low <= after <= high
            else:  # on its way back, and never farther out
                assert low <= after <= high or min(low, before) <= after <= max(high, before)
                step = rate * SECONDS
                assert after != before or before - step == before or before + step == before
        previous = allowed


@settings(derandomize=True)
@given(
    wanted=st.lists(numbers, min_size=2, max_size=2), dtype=st.sampled_from(DTYPES), bounds=st.tuples(numbers, numbers)
)
def test_the_range_holds_after_rounding_without_a_rate(wanted, dtype, bounds):
    low, high = sorted(bounds)
    with np.errstate(all="ignore"):
        action = np.nan_to_num(np.array(wanted).astype(dtype))
    allowed = Limits(low=low, high=high).apply(action, None, SECONDS).astype(np.float64)
    assert (allowed >= low).all() and (allowed <= high).all()


@pytest.mark.parametrize("dtype", ("float16", "float32", "float64", ">f4"))
def test_an_action_keeps_its_dtype(dtype):
    limits = Limits(low=-0.1, high=0.1, rate=1.0)
    allowed = limits.apply(np.array([90, -90], dtype), np.zeros(2), SECONDS)
    assert allowed.dtype == dtype and (np.abs(allowed.astype(np.float64)) <= 0.1).all() and np.abs(allowed).min() > 0.09


def test_a_step_smaller_than_the_dtype_can_tell_is_taken_all_the_same():
    limits, position = Limits(rate=1e-4), np.full(1, 1000.0, np.float16)
    for _ in range(10):
        position = limits.apply(np.full(1, 2000.0, np.float16), position, SECONDS)
    assert position[0] == pytest.approx(1000 + 1e-4, abs=1e-9)


def test_from_outside_the_range_the_way_back_keeps_the_rate():
    limits, position, way = Limits(low=-1, high=1, rate=10), np.array([4.5, -1.5]), []
    for _ in range(5):
        position = limits.apply(np.array([9.0, 0.0]), position, SECONDS)
        way.append(position.tolist())
    assert way == [[3.5, -0.5], [2.5, 0.0], [1.5, 0.0], [1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("wrong", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("limits", (Limits(low=-1, high=1), Limits(rate=1), Limits(low=-1, high=1, rate=1)))
def test_what_is_not_finite_is_refused(limits, wrong):
    for action, previous in (([0.0, wrong], [0.0, 0.0]), ([0.0, 0.0], [wrong, 0.0])):
        with pytest.raises(SpecpolicyError, match="not finite"):
            limits.apply(np.array(action), np.array(previous), SECONDS)


def test_what_is_allowed_passes_unchanged():
    for dtype in (np.float32, np.float64):
        action = np.array([0.3, -0.2], dtype)
        for limits in (Limits(), Limits(low=-1, high=1), Limits(rate=10), Limits(high=[1, 1])):
            allowed = limits.apply(action, np.zeros(2), 0.1)
            np.testing.assert_array_equal(allowed, action)
            assert allowed.dtype == dtype
        # Without a word of where the robot stands there is nothing to count the first step from.
        np.testing.assert_array_equal(Limits(rate=0.1).apply(action, None, 0.1), action)


@pytest.mark.parametrize(
    "options, message",
    (
        ({"low": 1, "high": 0}, "above"),
        ({"rate": 0}, "must be positive"),
        ({"low": [[1]]}, "one number per dimension"),
        ({"high": float("nan")}, "one number per dimension"),
        ({"low": "a"}, "low=a must be a number"),
        ({"low": [-1, -1], "high": [1, 1, 1]}, "low has 2, high has 3 entries"),
    ),
)
def test_limits_that_cannot_be_meant(options, message):
    with pytest.raises(SpecpolicyError, match=message):
        Limits(**options)


def test_limits_must_fit_the_actions():
    Limits(low=0, high=[1, 2]).check(2)
    with pytest.raises(SpecpolicyError, match="high has 2 entries, an action has 3"):
        Limits(low=0, high=[1, 2]).check(3)
