"""The live loop when all goes well."""

import gc
import itertools
import time

import numpy as np
import pytest
from scripted import HZ, Recorder, Steps, controller

from specpolicy.control import Limits, TimingLog
from specpolicy.control.clock import WallClock
from specpolicy.control.worker import InlineWorker
from specpolicy.errors import SpecpolicyError


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
    assert summary["missed_periods"] == 25 - len(log.ticks) and summary["calls"] == 3
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
    log = controller(robot, Steps(length=60), clock=clock, execute_steps=5).run(seconds=1.0)
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


def test_the_loop_keeps_its_rate_on_the_wall_clock(robots):
    """With a clock whose time a test advances, every period has its tick."""
    robot, passed = robots(), [0.0]

    def wait(seconds):
        passed[0] += seconds
        return passed[0]

    clock = WallClock(HZ, now=lambda: wait(1e-5), sleep=wait)
    log = controller(robot, clock=clock, worker=InlineWorker(Steps())).run(seconds=2.0)
    assert [tick.step for tick in log.ticks] == list(range(round(2 * HZ))) and len(robot.actions) == round(2 * HZ)


def test_the_garbage_collector_leaves_what_was_there_before_alone_during_a_run(robots):
    """Else it walks through all imported objects in the middle of a control period."""
    gc.unfreeze()
    robot, walked = robots(), []
    robot.stop = lambda: walked.append(len(gc.get_objects()))
    running = controller(robot, clock="paused")
    before = len(gc.get_objects())
    running.run(seconds=0.1)
    assert before > 10_000 and walked[0] < before / 10
    assert gc.get_freeze_count() == 0 and len(gc.get_objects()) > 0.9 * before
    gc.freeze()


def test_what_a_program_has_frozen_itself_stays_frozen(robots):
    gc.freeze()
    before = gc.get_freeze_count()
    controller(robots(), clock="paused").run(seconds=0.1)
    assert gc.get_freeze_count() > 0.9 * before  # what has been freed since is gone


def test_a_cold_first_call_is_waited_for(robots):
    """Without a warm-up nothing is known of what a call takes."""
    robot = robots()
    controller(robot, Steps(sleep=1.2, length=200), warm_up=0, on_miss="continue_chunk").run(seconds=0.1)
    assert robot.actions and len(robot.stops) == 1


@pytest.mark.parametrize("warm_up", (0, 1))
def test_no_call_to_the_robot_is_blamed_for_the_start_of_inference(robots, warm_up):
    """A watchdog of half a second is for the robot's calls; to begin, a planner may take longer."""

    class Slow(Steps):
        def reset(self, seed):
            super().reset(seed)
            during.append(running._supervisor.running)

    during = []
    running = controller(robots(), Slow(), clock="paused", warm_up=warm_up)
    running.run(seconds=0.1)
    assert during == ["the start of inference"] * 2


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


@pytest.mark.parametrize("seconds", (0, -1, float("nan"), float("inf")))
def test_a_run_of_no_time_is_refused_before_anything_moves(robots, seconds):
    robot = robots()
    with pytest.raises(SpecpolicyError, match=f"seconds={seconds}: expected a positive number, or None"):
        controller(robot).run(seconds=seconds)
    assert not robot.observed and not robot.actions


@pytest.mark.parametrize("method", ("observe", "act", "stop"))
def test_a_robot_without_one_of_its_methods_is_refused_at_once(robots, method):
    robot = robots()
    setattr(robot, method, None)
    with pytest.raises(SpecpolicyError, match=rf"Recorder is no robot: it has no method {method}\(\)"):
        controller(robot)
