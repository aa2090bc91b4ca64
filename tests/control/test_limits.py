"""Limits of range and rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specpolicy.control.limits import Limits
from specpolicy.errors import SpecpolicyError

numbers = st.floats(-50, 50)


@given(wanted=st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
def test_no_sequence_of_actions_leaves_the_limits(wanted):
    limits = Limits(low=[-1.0, -2.0], high=1.0, rate=[10.0, 5.0])
    previous = None
    for action in wanted:
        allowed = limits.apply(np.array(action), previous, seconds=0.1)
        assert (allowed >= [-1, -2]).all() and (allowed <= 1).all()
        if previous is not None:
            assert (np.abs(allowed - previous) <= np.array([1.0, 0.5]) + 1e-9).all()
        previous = allowed


def test_what_is_allowed_passes_unchanged():
    action = np.array([0.3, -0.2])
    for limits in (Limits(), Limits(low=-1, high=1), Limits(rate=10), Limits(high=[1, 1])):
        np.testing.assert_array_equal(limits.apply(action, np.zeros(2), 0.1), action)
    np.testing.assert_array_equal(Limits(rate=0.1).apply(action, None, 0.1), action)  # the first one has no rate


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
