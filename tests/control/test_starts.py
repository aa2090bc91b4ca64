"""Where a run starts: a limit on the rate counts from there."""

import numpy as np
import pytest
from scripted import HZ, Recorder, Steps, controller

from specpolicy.committed import WAYS
from specpolicy.control import Limits
from specpolicy.control.execution import STITCHING
from specpolicy.errors import SpecpolicyError


class Far(Steps):
    """Wants the robot at 90, whatever it observes."""

    def plan(self, history, committed=None):
        chunk = super().plan(history)
        chunk.actions[:] = 90.0
        return chunk


class Placed(Recorder):
    """A robot that knows where it stands."""

    place = np.array([1.0, -1.0])

    def position(self):
        if self.fault == "position":
            raise OSError("the encoder does not answer")
        return self.place


RATE = Limits(rate=2 * HZ)  # two units a control step


@pytest.mark.parametrize("clock", ("wall", "paused", "delay", "charged"))
@pytest.mark.parametrize(
    "kind, made, run, first",
    (
        (Placed, {}, {}, [3, 1]),
        (Recorder, {"start": [4.0, 5.0]}, {}, [6, 7]),
        (Recorder, {}, {"start": np.zeros(2)}, [2, 2]),
        (Recorder, {}, {"start": 7}, [9, 9]),
        (Placed, {"start": [4.0, 5.0]}, {}, [6, 7]),
        (Placed, {"start": [4.0, 5.0]}, {"start": (0, 1)}, [2, 3]),
    ),
)
def test_the_rate_counts_from_where_the_robot_stands(clock, kind, made, run, first):
    robot = kind()
    log = controller(robot, Far(length=200), clock=clock, limits=RATE, **made).run(seconds=0.1, **run)
    actions = np.array(robot.actions)
    assert actions[0].tolist() == first and (np.diff(actions, axis=0) == 2).all()
    assert log.summary()["limited_actions"] == len(actions) == len(log.ticks)


@pytest.mark.parametrize("on_miss", ("continue_chunk", "hold_last", "block"))
@pytest.mark.parametrize("stitching", [name for name in STITCHING if name not in WAYS[1:]])
def test_the_rate_holds_across_late_chunks_and_from_run_to_run(on_miss, stitching):
    robot = Placed()
    robot.place = np.zeros(2)
    options = {"lead": 1, "on_miss": on_miss, "stitching": stitching, "hold": (0.0, None), "limits": RATE}
    running = controller(robot, Far(length=5, sleep=0.08), **options)
    for _ in range(2):
        del robot.actions[:]
        log = running.run(seconds=0.4)
        assert log.starved_ticks > 0
        actions = np.array([robot.place, *robot.actions])
        assert len(actions) > 3 and np.abs(np.diff(actions, axis=0)).max() <= 2
        robot.place = robot.actions[-1] / 2  # it has been moved, or has not come to where it was sent


@pytest.mark.parametrize(
    "kind, fault, options, message",
    (
        (Recorder, None, {}, r"give the robot a method position\(\) .* or give start="),
        (Placed, None, {"place": None}, r"position\(\)"),
        (Recorder, None, {"position": np.zeros(2)}, r"position\(\)"),  # an attribute of the driver's own
        (Placed, "position", {}, r"robot\.position\(\) failed: OSError: the encoder does not answer"),
        (Placed, None, {"place": np.array([0.0, np.nan])}, r"robot\.position\(\) is .*: expected a finite number"),
        (Placed, None, {"place": "home"}, r"robot\.position\(\) is home: expected"),
        (Placed, None, {"place": np.zeros(3)}, "the start pose has 3 entries, an action has 2"),
    ),
)
def test_a_rate_without_a_start_is_refused_before_anything_moves(kind, fault, options, message):
    robot = kind(fault)
    for name, value in options.items():
        setattr(robot, name, value)
    with pytest.raises(SpecpolicyError, match=message) as caught:
        controller(robot, Far(), limits=RATE).run(seconds=0.1)
    assert "\n" not in str(caught.value) and not robot.actions and len(robot.stops) == 1


def test_the_start_of_the_first_run_is_not_that_of_the_second(robots):
    robot = robots()
    running = controller(robot, Far(), limits=RATE, start=np.zeros(2))
    running.run(seconds=0.1)
    acted = len(robot.actions)
    with pytest.raises(SpecpolicyError, match="start="):
        running.run(seconds=0.1)
    assert acted and len(robot.actions) == acted
    running.run(seconds=0.1, start=robot.actions[-1])
    assert (np.diff(np.array(robot.actions), axis=0) == 2).all()


def test_in_a_simulated_world_the_first_action_may_have_no_rate(robots):
    robot = robots()
    controller(robot, Far(), clock="paused", limits=RATE).run(seconds=0.1)
    assert robot.actions[0].tolist() == [90, 90]


class Down(Steps):
    """A planner that cannot be reached at first."""

    up = False

    def reset(self, seed):
        if not self.up:
            self.up = True
            raise ConnectionError("the server is not there yet")
        super().reset(seed)

    def plan(self, history):
        chunk = super().plan(history)
        chunk.actions[:] = 90.0
        return chunk


def test_a_start_serves_until_an_action_has_been_sent(robots):
    robot = robots()
    running = controller(robot, Down(), limits=RATE, start=np.zeros(2))
    with pytest.raises(SpecpolicyError, match="not there yet"):
        running.run(seconds=0.1)
    assert not robot.actions
    running.run(seconds=0.1)
    assert robot.actions[0].tolist() == [2, 2]
    with pytest.raises(SpecpolicyError, match="start="):
        running.run(seconds=0.1)


def test_a_start_of_a_run_leaves_none_to_the_next(robots):
    robot = robots()
    running = controller(robot, Far(), limits=RATE, start=np.zeros(2))
    running.run(seconds=0.1, start=np.ones(2))
    with pytest.raises(SpecpolicyError, match="start="):
        running.run(seconds=0.1)
