"""The live loop: what it does when all goes well, and that every fault stops the robot."""

import itertools
import os
import signal
import threading
import time

import numpy as np
import pytest
from scripted import Recorder, Steps

from specpolicy.control import Controller, Limits, TimingLog
from specpolicy.control.clock import WallClock
from specpolicy.control.worker import InlineWorker
from specpolicy.errors import SpecpolicyError

HZ = 50


def controller(robot, planner=None, **options):
    options = {"hz": HZ, "worker": "thread", "warm_up": 1, "inference_timeout": 60.0, "watchdog": 60.0, **options}
    return Controller(planner or Steps(), robot, **options)


@pytest.fixture
def robots():
    """Makes robots whose hanging calls are let go in the end, so that their threads end."""
    made = []

    def make(*arguments, **options):
        made.append(Recorder(*arguments, **options))
        return made[-1]

    yield make
    for robot in made:
        robot.released.set()


def fails(running, message):
    """Run a controller into its fault; return the error's text."""
    with pytest.raises(SpecpolicyError, match=message) as caught:
        running.run(seconds=60)
    assert "\n" not in str(caught.value)
    robot = running.robot
    assert len(robot.stops) == 1 and robot.acts_after_stop == 0
    return str(caught.value)


@pytest.mark.parametrize("worker", ("thread", "process"))
def test_a_run_on_the_wall_clock(robots, worker):
    robot = robots()
    running = controller(robot, worker=worker, warm_up=2)
    log = running.run(seconds=0.5)
    assert isinstance(log, TimingLog) and log is running.log
    assert log.ticks[-1].step <= 24 and robot.stops == ["control"]
    assert len(robot.actions) == len(log.ticks)
    # Steps are taken in their own time and never twice; what a late loop has missed is skipped.
    steps = [tick.step for tick in log.ticks]
    assert all(after > before for before, after in itertools.pairwise(steps))
    assert all(tick.seconds >= tick.step / HZ for tick in log.ticks)
    summary = log.summary()
    assert summary["worker"] == worker and summary["warm_up"] == 2
    assert summary["missed_periods"] == log.ticks[-1].step + 1 - len(log.ticks) and summary["calls"] == 3
    # The first chunk was observed before the beginning of step 0.
    assert log.ticks[0].age > log.ticks[0].seconds


def test_actions_are_those_of_their_control_step(robots):
    """What the robot observes is the control step, so a plan is right if each action is the step's own number."""
    robot = robots()
    clock = WallClock(HZ)
    seen = [0]

    def wait_until(step):
        seen.append(WallClock.wait_until(clock, step))
        if len(seen) % 10 == 0:  # now and then the loop is late by whole periods
            time.sleep(2.5 / HZ)
        return seen[-1]

    clock.wait_until = wait_until
    robot.observe = lambda: {"step": np.array(float(seen[-1]))}
    log = controller(robot, Steps(length=60), clock=clock, replan_every=5).run(seconds=1.0)
    assert log.starved_ticks == 0 and log.summary()["missed_periods"] > 0
    assert [tick.step for tick in log.ticks] == [action[0] for action in robot.actions]


def test_a_run_ends_when_told_to(robots):
    robot = robots()
    log = controller(robot).run(until=lambda: len(robot.actions) >= 7)
    assert len(log.ticks) == len(robot.actions) == 7 and len(robot.stops) == 1


@pytest.mark.parametrize("clock", ("paused", "delay", "charged"))
def test_a_simulated_world_waits_and_is_reproducible(robots, clock):
    runs = []
    for _ in range(2):
        robot = robots()
        log = controller(robot, Steps(seconds=0.05), clock=clock, hz=20, lead=1, seed=5).run(seconds=2)
        assert [tick.seconds for tick in log.ticks] == [step / 20 for step in range(40)]
        assert log.worker == "inline" and log.summary()["tick_lateness"]["max"] == 0
        runs.append([action[0] for action in robot.actions])
    assert runs[0] == runs[1] == list(range(40))


def test_a_planner_begins_each_run_anew_after_its_warm_up(robots):
    planner = Steps()
    controller(robots(), planner, clock="paused", warm_up=4, seed=9).run(seconds=0.5)
    assert planner.seed == 9 and len(planner.histories) == 7  # 25 steps, four at a time


def test_blocking_gives_a_robot_on_the_wall_clock_no_action(robots):
    robot = robots()
    planner = Steps(sleep=0.1)
    log = controller(robot, planner, lead=1, on_miss="block").run(seconds=0.5)
    assert log.starved_ticks > 0 and len(robot.actions) == len(log.ticks) - log.starved_ticks


def test_limits_reach_the_robot(robots):
    robot = robots()
    limits = Limits(high=6, rate=0.5 * HZ)
    log = controller(robot, clock="paused", limits=limits).run(seconds=0.4)
    actions = np.array(robot.actions)[:, 0]
    assert actions[:4].tolist() == [0, 0.5, 1, 1.5] and actions.max() == 6 and len(actions) == 20
    assert log.summary()["limited_actions"] == 19


# Every fault, in both kinds of worker: one clear error, the robot stopped once, and no action after that.


@pytest.mark.parametrize(
    "worker, fault, message",
    (
        ("thread", "raise", "inference failed: ZeroDivisionError: a planner divided by zero"),
        ("process", "raise", "inference failed: ZeroDivisionError: a planner divided by zero"),
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


def test_a_cold_first_call_is_waited_for(robots):
    """Without a warm-up nothing is known of what a call takes."""
    robot = robots()
    controller(robot, Steps(sleep=1.2, length=200), warm_up=0, on_miss="continue_chunk").run(seconds=0.1)
    assert robot.actions and len(robot.stops) == 1


def test_what_until_raises_is_told_as_such(robots):
    robot = robots()
    running = controller(robot)
    with pytest.raises(SpecpolicyError, match=r"^until\(\) failed: ZeroDivisionError"):
        running.run(seconds=1, until=lambda: 1 // 0)
    assert len(robot.stops) == 1 and not robot.actions


def test_the_loop_keeps_its_rate_on_the_wall_clock(robots):
    """With a clock whose time a test advances, every period has its tick."""
    robot, passed = robots(), [0.0]

    def wait(seconds):
        passed[0] += seconds
        return passed[0]

    clock = WallClock(HZ, now=lambda: wait(1e-5), sleep=wait)
    log = controller(robot, clock=clock, worker=InlineWorker(Steps())).run(seconds=2.0)
    assert [tick.step for tick in log.ticks] == list(range(round(2 * HZ))) and len(robot.actions) == round(2 * HZ)


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


@pytest.mark.parametrize(
    "options, message",
    (
        ({"hz": 0}, "hz=0"),
        ({"watchdog": -1.0}, "watchdog=-1.0"),
        ({"worker": "elf"}, "unknown worker 'elf'"),
        ({"clock": "sundial"}, "unknown clock"),
        ({"warm_up": -1}, "warm_up=-1"),
        ({"on_miss": "panic"}, "unknown on_miss"),
    ),
)
def test_settings_that_cannot_be_meant(options, message):
    with pytest.raises(SpecpolicyError, match=message):
        controller(Recorder(), **options)
