"""Clocks: what the time of inference means for the world, and the pacing of real time."""

import itertools
import math

import numpy as np
import pytest

from specpolicy.control.clock import CLOCKS, ChargedClock, Clock, DelayClock, PausedClock, WallClock, make_clock
from specpolicy.errors import SpecpolicyError


class FakeTime:
    """Time that passes only by sleeping and, a little, by looking at it. Sleep ends late by `overshoot`."""

    def __init__(self, overshoot=0.0):
        self.seconds, self.overshoot, self.slept = 100.0, overshoot, []

    def now(self):
        self.seconds += 1e-5
        return self.seconds

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds + self.overshoot


@pytest.mark.parametrize("seconds", (0.0, 0.3, 1e3))
def test_a_paused_world_loses_no_step_however_long_inference_takes(seconds):
    clock: Clock = PausedClock()
    clock.reset()
    assert clock.wait_until(7) == 7
    assert clock.usable_step(7, seconds) == 7
    assert clock.delay_steps(seconds) == 0
    other: Clock = ChargedClock(hz=10)
    assert other.wait_until(7) == 7
    assert other.usable_step(7, seconds) == 7 + math.ceil(10 * seconds)


def test_a_delay_is_the_same_whatever_was_measured():
    clock = DelayClock(3)
    assert clock.usable_step(5, 0.0) == clock.usable_step(5, 99.0) == 8 and clock.delay_steps(99.0) == 3


def test_the_charged_clock_rounds_up_and_scales():
    clock = ChargedClock(hz=20, scale=2.0)
    assert [clock.usable_step(4, seconds) for seconds in (0.0, 0.001, 0.025, 0.0251)] == [4, 5, 5, 6]
    # Whole periods stay whole, although 0.15 * 20 is 3.0000000000000004 in floating point.
    assert [ChargedClock(20).delay_steps(steps * 0.05) for steps in range(50)] == list(range(50))


def test_a_trace_is_replayed_entry_by_entry_from_where_the_seed_says():
    trace = [0.0, 0.1, 0.2, 0.3, 0.4]

    def delays(seed):
        clock = DelayClock(trace=trace, hz=10)
        clock.reset(seed)
        return [clock.usable_step(0, 99.0) for _ in range(10)]

    first = delays(1)
    assert first == delays(1) and sorted(first) == sorted(2 * [0, 1, 2, 3, 4])
    assert all((b - a) % 5 == 1 for a, b in itertools.pairwise(first))
    assert len({tuple(delays(seed)) for seed in range(30)}) == 5
    assert DelayClock(trace=trace, hz=10, scale=3.0).delay_steps(0.0) == math.ceil(30 * np.quantile(trace, 0.95))


@pytest.mark.parametrize("overshoot", (0.0, 3e-4))
def test_the_wall_clock_meets_absolute_deadlines_and_spins_for_a_millisecond_at_most(overshoot):
    time = FakeTime(overshoot)
    clock = WallClock(10, now=time.now, sleep=time.sleep)
    clock.reset()
    start = time.seconds
    for step in range(50):
        assert clock.wait_until(step) == step
        # However late each sleep ends, nothing adds up.
        assert 0 <= time.seconds - (start + step / 10) < 1e-4
        time.seconds += 0.03  # the work of the step
    assert all(0.06 < slept < 0.07 for slept in time.slept) and len(time.slept) == 49


def test_the_wall_clock_skips_whole_periods_and_keeps_its_phase():
    time = FakeTime()
    clock = WallClock(10, now=time.now, sleep=time.sleep)
    clock.reset()
    start = time.seconds
    assert clock.wait_until(0) == 0
    time.seconds = start + 0.15
    assert clock.wait_until(1) == 1 and not time.slept  # late by half a period: taken at once
    time.seconds = start + 0.47
    assert clock.wait_until(2) == 4 and not time.slept  # periods 2 and 3 are over
    assert clock.wait_until(5) == 5 and time.seconds == pytest.approx(start + 0.5, abs=1e-4)


def test_on_the_wall_clock_a_chunk_is_usable_in_the_step_in_which_it_comes():
    time = FakeTime()
    clock = WallClock(10, now=time.now, sleep=time.sleep)
    clock.reset()
    clock.wait_until(4)
    assert clock.usable_step(1, 0.29) == 4
    assert [clock.delay_steps(seconds) for seconds in (0.0, 0.05, 0.11)] == [1, 1, 2]


def test_clocks_by_name():
    assert [make_clock(name, 20).name for name in CLOCKS] == list(CLOCKS)
    assert make_clock("delay", 20, delay=4).usable_step(0, 0.0) == 4
    assert make_clock("charged", 20, scale=2.0).usable_step(0, 0.1) == 4
    assert [make_clock(name, 20).simulated for name in CLOCKS] == [False, True, True, True]


@pytest.mark.parametrize(
    "make, message",
    (
        (lambda: make_clock("sundial", 20), "unknown clock 'sundial'"),
        (lambda: make_clock("wall", 0), "hz=0"),
        (lambda: ChargedClock(float("nan")), "hz=nan"),
        (lambda: ChargedClock(20, scale=0), "factor of 0"),
        (lambda: DelayClock(-1), "a delay of -1"),
        (lambda: DelayClock(trace=[], hz=20), "at least one time"),
        (lambda: DelayClock(trace=[0.1, -0.1], hz=20), "none below zero"),
    ),
)
def test_clocks_that_cannot_be_meant(make, message):
    with pytest.raises(SpecpolicyError, match=message):
        make()
