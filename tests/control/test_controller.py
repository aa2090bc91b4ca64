"""The live loop when all goes well."""

import gc
import itertools
import time

import numpy as np
import pytest
from scripted import HZ, Recorder, Steps, controller

from specpolicy.committed import WAYS
from specpolicy.control import Limits, TimingLog
from specpolicy.control.clock import DelayClock, WallClock
from specpolicy.control.execution import STITCHING
from specpolicy.control.supervisor import Supervisor
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
