"""The live loop when all goes well."""

import gc
import itertools
import time

import numpy as np
import pytest
from scripted import HZ, Recorder, Steps, controller

from specpolicy.committed import WAYS
from specpolicy.control import Limits, TimingLog
from specpolicy.control.clock import WallClock
from specpolicy.control.execution import STITCHING
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
