"""The periods of a run: the last action has its own, and those that were missed are counted."""

import time

import numpy as np
import pytest
from scripted import HZ, Steps, controller

from specpolicy.control.clock import DelayClock, WallClock
from specpolicy.control.supervisor import Supervisor
from specpolicy.control.worker import InlineWorker
from specpolicy.errors import SpecpolicyError


class Passing:
    """The time of a clock on the wall that passes only where a test says so."""

    def __init__(self):
        self.seconds = 0.0

    def wait(self, seconds):
        self.seconds += seconds

    def clock(self):
        def now():  # time passes while a clock is read, or it would spin for ever
            self.wait(1e-5)
            return self.seconds

        return WallClock(HZ, now=now, sleep=self.wait)


def test_the_last_action_has_its_period_before_the_stop(robots):
    robot, time_of = robots(), Passing()
    acted, stopped, act, stop = [], [], robot.act, robot.stop
    robot.act = lambda action: (acted.append(time_of.seconds), act(action))
    robot.stop = lambda: (stopped.append(time_of.seconds), stop())
    log = controller(robot, clock=time_of.clock(), worker=InlineWorker(Steps())).run(seconds=5 / HZ)
    assert len(acted) == len(log.ticks) == 5 and len(stopped) == 1
    moments = np.diff([*acted, *stopped])
    assert moments == pytest.approx(5 * [1 / HZ], rel=0.1) and log.summary()["missed_periods"] == 0


def test_the_wait_after_the_last_action_is_announced(robots, monkeypatch):
    """It may be longer than what a call to the robot may take."""
    robot, announced, begins = robots(), [], Supervisor.begins

    def note(self, doing, seconds=0.0, always=False):
        announced.append((doing, seconds))
        begins(self, doing, seconds, always)

    monkeypatch.setattr(Supervisor, "begins", note)
    controller(robot, clock=Passing().clock(), worker=InlineWorker(Steps())).run(seconds=3 / HZ)
    wait = ("the wait for the next control step", 1 / HZ)
    assert announced[-2:] == [("robot.act()", 0.0), wait] and announced.count(wait) == 4


def test_a_simulated_world_does_not_wait_after_its_last_action(robots):
    robot, waited = robots(), []
    clock = DelayClock(1)
    clock.wait_until = lambda step: waited.append(step) or step
    controller(robot, clock=clock).run(seconds=5 / HZ)
    assert waited == list(range(5)) and len(robot.actions) == 5


@pytest.mark.parametrize("first, last, missed", ((0, 0, 0), (4, 0, 4), (0, 9, 9), (3, 5, 8)))
def test_periods_before_the_first_step_and_after_the_last_one_are_missed_too(robots, first, last, missed):
    """The first call of `until` takes so many periods, and the last action so many too many."""
    robot, time_of = robots(), Passing()
    act, steps = robot.act, 20

    def until():
        if not robot.actions and first:
            time_of.wait((first + 0.5) / HZ)
        return False

    def slow(action):
        act(action)
        if last and len(robot.actions) == steps - missed:
            time_of.wait((1 + last + 0.5) / HZ)

    robot.act = slow
    running = controller(robot, Steps(length=60), clock=time_of.clock(), worker=InlineWorker(Steps(length=60)))
    log = running.run(seconds=steps / HZ, until=until)
    assert log.ticks[0].step == first and log.ticks[-1].step == steps - 1 - last
    assert log.summary()["missed_periods"] == missed and log.summary()["ticks"] == steps - missed


@pytest.mark.parametrize("end", ("until", "raise", "hang"))
def test_periods_that_pass_before_another_end_are_missed_too(robots, end):
    """The last call sleeps through five more periods than its own, or longer where the machine is busy."""
    robot = robots()
    act = robot.act

    def last(action):
        act(action)
        time.sleep(6 / HZ)
        if end == "raise":
            raise OSError("the arm does not answer")
        if end == "hang":
            robot.released.wait()

    robot.act = last
    running = controller(robot, Steps(length=60), watchdog=0.3 if end == "hang" else 60.0)
    if end == "until":
        running.run(until=lambda: bool(robot.actions))
    else:
        with pytest.raises(SpecpolicyError, match="act"):
            running.run()
    assert len(robot.actions) == len(running.log.ticks) == 1 and running.log.summary()["missed_periods"] >= 5


def test_a_run_that_has_not_begun_has_missed_nothing(robots):
    running = controller(robots(), Steps(fault="raise"))
    with pytest.raises(SpecpolicyError, match="divided by zero"):
        running.run()
    assert running.log.summary()["missed_periods"] == 0
