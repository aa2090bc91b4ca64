"""The clock interface fits worlds that wait and worlds that do not."""

import math

import pytest

from specpolicy.control.clock import Clock, PausedClock


class ChargedByHand:
    """A clock outside the package: the world moves on by the time of inference."""

    name = "charged"

    def __init__(self, hz):
        self.hz = hz

    def reset(self):
        pass

    def wait_until(self, step):
        pass

    def usable_step(self, step, seconds):
        return step + math.ceil(seconds * self.hz)


@pytest.mark.parametrize("seconds", (0.0, 0.3, 1e3))
def test_a_paused_world_loses_no_step_however_long_inference_takes(seconds):
    clock: Clock = PausedClock()
    clock.reset()
    clock.wait_until(7)
    assert clock.usable_step(7, seconds) == 7
    other: Clock = ChargedByHand(hz=10)
    assert other.usable_step(7, seconds) == 7 + math.ceil(10 * seconds)
