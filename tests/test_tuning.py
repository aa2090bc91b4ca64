"""What calls cost, and the draft lengths that follow from it, against brute force."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy import tuning
from specpolicy.tuning import draft_lengths, interpolate_cost, measure_cost, time_calls

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only calls move: (take(seconds) makes a call that takes so long, the order of calls)."""
    time, order = [0.0], []

    def take(*seconds):
        left = list(seconds)

        def call():
            order.append(seconds)
            time[0] += left.pop(0) if len(left) > 1 else left[0]

        return call

    monkeypatch.setattr(tuning.time, "perf_counter", lambda: time[0])
    return take, order


def test_a_call_takes_what_its_fastest_turn_took(clock):
    take, order = clock
    found = time_calls({1: take(0.1, 2.0, 0.1, 1.0, 0.1, 3.0), 4: take(9.0, 9.0, 0.1, 4.0, 0.1, 8.0)}, CPU, turns=3)
    assert found == pytest.approx({1: 1.0, 4: 4.0})  # the first call of two, which warms up, does not count
    one, four = order[0], order[2]
    assert order == [one, one, four, four] * 3


def test_fewer_rows_take_no_longer_than_more(clock):
    take, _ = clock
    assert time_calls({1: take(3.0), 2: take(1.0), 4: take(2.0)}, CPU) == pytest.approx({1: 1.0, 2: 1.0, 4: 2.0})


def test_slow_calls_get_three_turns_and_quick_ones_all(clock):
    take, order = clock
    time_calls({1: take(1.0)}, CPU, turns=20, seconds=2.5)
    assert len(order) == 2 * tuning.FEWEST
    order.clear()
    time_calls({1: take(0.01)}, CPU, turns=20, seconds=2.5)
    assert len(order) == 2 * 20


def test_a_denoiser_is_timed_with_as_many_rows_as_a_chain_has_steps():
    seen = []

    def denoiser(x, t, cond):
        seen.append((tuple(x.shape), t.tolist(), tuple(cond.shape)))

    found = measure_cost(denoiser, torch.arange(6).flip(0), (3, 2), torch.zeros(1, 5), turns=1)
    assert sorted(found) == [1, 2, 4, 6] and len(seen) == 8
    assert seen[4] == ((4, 3, 2), [5, 4, 3, 2], (4, 5))


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.05, 0.999), min_size=1, max_size=5),
    st.lists(st.floats(0.01, 2.0), min_size=8, max_size=8),
)
def test_draft_lengths_are_the_cheapest_of_all(acceptance, increments):
    """Against the expected cost of every table of lengths."""
    count = len(acceptance)
    cost = torch.tensor(increments, dtype=torch.float64).cumsum(0)

    def expected(lengths):
        value = [0.0] * (count + 1)
        for step in range(count - 1, -1, -1):
            width = min(lengths[step], count - 1 - step)
            total, reached = float(cost[width + 1]), 1.0
            for draft in range(width):
                total += reached * (1 - acceptance[step + draft]) * value[step + draft + 1]
                reached *= acceptance[step + draft]
            value[step] = total + reached * value[step + width + 1]
        return value[0]

    best = min(expected(lengths) for lengths in itertools.product(range(1, count + 1), repeat=count))
    found = draft_lengths(torch.tensor(acceptance, dtype=torch.float64), cost)
    assert expected(found) == pytest.approx(best)


def test_costs_between_measured_sizes_are_interpolated():
    cost = interpolate_cost({1: 2.0, 4: 5.0, 2: 3.0, 8: 4.0}, 10)
    assert cost.tolist() == pytest.approx([2, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5])
