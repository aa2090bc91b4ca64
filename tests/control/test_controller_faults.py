"""Faults of the live loop: one clear error, the robot stopped once, and no action after that."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from scripted import Steps, controller

from specpolicy.errors import SpecpolicyError


def fails(running, message):
    """Run a controller into its fault; return the error's text."""
    with pytest.raises(SpecpolicyError, match=message) as caught:
        running.run(seconds=60)
    assert "\n" not in str(caught.value)
    robot = running.robot
    assert len(robot.stops) == 1 and robot.acts_after_stop == 0
    return str(caught.value)


@pytest.mark.parametrize(
    "worker, fault, message",
    (
        ("thread", "raise", "inference failed: ZeroDivisionError: a planner divided by zero"),
        ("process", "raise", "inference failed: ZeroDivisionError: a planner divided by zero"),
        ("thread", "unreadable", "^inference failed: Unreadable$"),
        ("process", "unreadable", "^inference failed: Unreadable$"),
        ("thread", "nan", "an action that is not finite"),
        ("process", "nan", "an action that is not finite"),
        ("thread", "shape", r"actions of shape \(3,\), the robot takes \(2,\)"),
        ("thread", "none", "a planner must return a Chunk"),
        ("thread", "hang", "inference has not answered for"),
        ("process", "hang", "inference has not answered for"),
        ("process", "die", r"process has died \(exit code 3"),
    ),
)
def test_a_fault_of_inference_stops_the_robot(robots, worker, fault, message):
    robot = robots()
    planner = Steps(fault=fault, at=2)  # after the warm-up call and, with a new count, the first and second chunk
    patience = 0.5 if fault == "hang" else 60.0
    running = controller(robot, planner, worker=worker, inference_timeout=patience)
    fails(running, message)
    assert robot.stops == ["control"] and len(robot.actions) >= 4
    if worker == "thread" and fault == "raise":  # the step that was under way, and one for a slow thread
        assert sum(moment > planner.failed for moment in robot.moments) <= 2
    # Nothing of a broken chunk was executed: all actions are of the chunks before it.
    assert np.isfinite(robot.actions).all() and all(action.shape == (2,) for action in robot.actions)
    assert running.log.ticks and running.log.summary()["ticks"] >= len(robot.actions)


@pytest.mark.parametrize("fault", ("raise", "nan"))
def test_a_fault_before_the_first_step_stops_the_robot(robots, fault):
    robot = robots()
    fails(controller(robot, Steps(fault=fault)), "inference failed|not finite")
    assert not robot.actions


@pytest.mark.parametrize(
    "fault, message",
    (
        ("raise", r"robot\.observe\(\) failed: ConnectionError: the camera is gone"),
        ("none", "lost observation: .* got NoneType"),
        ("key", "lost observation: 'step' is missing"),
        ("nan", "lost observation: 'step' has a value that is not finite"),
        ("shape", r"lost observation: 'step' has shape \(2,\), at the start it had \(\)"),
        ("dtype", "lost observation: 'step' is float32, at the start it was float64"),
        ("more", "lost observation: 'more' is new, at the start there was step"),
        ("text", "lost observation: 'step' holds"),
    ),
)
def test_a_lost_observation_stops_the_robot_in_the_same_step(robots, fault, message):
    robot = robots(fault, at=6)  # after one for the warm-up, one for the first chunk and four steps
    fails(controller(robot), message)
    assert len(robot.actions) == 4 and robot.stops == ["control"]


def test_an_observation_lost_from_the_start(robots):
    robot = robots("raise", at=0)
    fails(controller(robot), "the camera is gone")
    assert not robot.actions


def test_an_observation_that_never_comes_stops_the_robot(robots):
    robot = robots("hang", at=6)
    running = controller(robot, watchdog=0.3)
    fails(running, r"robot\.observe\(\) has not come back for 0\.3 s")
    assert robot.stops == ["stop"] and len(robot.actions) == 4
    robot.released.set()  # too late: whatever the loop does now, the robot gets no more actions
    for thread in threading.enumerate():
        if thread.name == "control":
            thread.join(10)
    assert len(robot.actions) == 4 and len(robot.stops) == 1


def test_an_action_that_fails_stops_the_robot(robots):
    robot = robots("act")
    fails(controller(robot), r"robot\.act\(\) failed: OSError: the arm does not answer")
    assert len(robot.actions) == 3


def test_an_action_that_hangs_stops_the_robot(robots):
    robot = robots("act hang")
    fails(controller(robot, watchdog=0.3), r"robot\.act\(\) has not come back")
    assert robot.stops == ["stop"]


def test_ctrl_c_stops_the_robot_between_two_calls(robots):
    robot = robots("ctrl-c", at=5)
    with pytest.raises(KeyboardInterrupt):
        controller(robot, hz=5).run(seconds=60)
    assert len(robot.stops) == 1 and robot.acts_after_stop == 0
    # The call during which it came was not torn apart; a period later the robot is stopped.
    assert 6 <= len(robot.actions) <= 7


def test_ctrl_c_while_the_robot_hangs_stops_it_as_well(robots):
    robot = robots()
    observe = robot.observe

    def hang():
        if len(robot.actions) < 6:
            return observe()
        os.kill(os.getpid(), signal.SIGINT)
        robot.released.wait()

    robot.observe = hang
    with pytest.raises(KeyboardInterrupt):
        controller(robot, watchdog=None).run(seconds=60)
    assert robot.stops == ["stop"] and len(robot.actions) == 6


def test_inference_that_hangs_is_found_without_a_watchdog(robots):
    """In a simulated world inference runs in the loop, so that only the supervisor can see it hang."""
    robot = robots()
    planner = Steps(fault="hang", at=2)
    running = controller(robot, planner, clock="paused", watchdog=None, inference_timeout=0.2)
    fails(running, "inference has not come back for")
    assert robot.stops == ["stop"] and len(robot.actions) == 8


def test_a_process_that_has_been_stopped_does_not_stop_the_loop(robots):
    """With images, whose observations no pipe takes in one piece: the loop holds until inference counts as hung."""
    robot, image = robots(), np.zeros((1024, 1024, 3), np.uint8)
    observe, act = robot.observe, robot.act
    robot.observe = lambda: {**observe(), "camera": image}

    def stop_inference(action):
        act(action)
        if len(robot.actions) == 6:
            time.sleep(1.0)  # the chunk under way comes, so that there is a new one to be asked for
            os.kill(running.worker._process.pid, signal.SIGSTOP)

    robot.act = stop_inference
    running = controller(robot, worker="process", inference_timeout=1.0, watchdog=30.0)
    fails(running, "inference has not answered for")
    assert robot.stops == ["control"] and len(robot.actions) > 15
    assert running.log.starved_ticks > 5


def test_what_until_raises_is_told_as_such(robots):
    robot = robots()
    running = controller(robot)
    with pytest.raises(SpecpolicyError, match=r"^until\(\) failed: ZeroDivisionError"):
        running.run(seconds=1, until=lambda: 1 // 0)
    assert len(robot.stops) == 1 and not robot.actions


def test_a_stop_that_fails_is_told(robots):
    robot = robots("stop")
    with pytest.raises(SpecpolicyError, match=r"^robot\.stop\(\) failed: OSError: the brake does not answer$"):
        controller(robot).run(seconds=0.1)
    robot = robots("stop")
    with pytest.raises(SpecpolicyError, match=r"divided by zero; robot\.stop\(\) failed: OSError"):
        controller(robot, Steps(fault="raise", at=2)).run(seconds=60)


def test_a_stop_that_hangs_is_told(robots):
    robot = robots("stop hang")
    with pytest.raises(SpecpolicyError, match=r"robot\.stop\(\) has not come back for 0\.3 s or more: the robot may"):
        controller(robot, watchdog=0.3).run(seconds=0.1)


def test_a_missed_deadline_stops_the_robot_if_asked_to(robots):
    robot = robots()
    fails(controller(robot, Steps(sleep=0.2), lead=1, on_miss="stop"), "on_miss=stop")


def test_inference_too_slow_for_its_chunks_is_refused_before_the_robot_moves(robots):
    robot = robots()
    fails(controller(robot, Steps(length=4, sleep=0.2)), "has only 4 actions: use a faster sampler")
    assert not robot.actions
