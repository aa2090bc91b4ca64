"""The supervisor by itself: what is raised around it, what cannot be had, and what comes too late."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from scripted import Steps, controller

from specpolicy.control.limits import Limits
from specpolicy.control.supervisor import CLOSE_SECONDS, Supervisor
from specpolicy.control.worker import ThreadWorker
from specpolicy.errors import SpecpolicyError


class TimeIsUp(BaseException):
    """What a signal handler of the program's own raises."""


@pytest.fixture
def alarm():
    """Begins to send this program SIGALRM, whose handler raises until it is told that this is enough."""
    enough = threading.Event()

    def handle(number, frame):
        if not enough.is_set():
            raise TimeIsUp

    def start():
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.01)
        return enough

    before = signal.signal(signal.SIGALRM, handle)
    yield start
    enough.set()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_what_handlers_raise_again_and_again_keeps_nothing_from_the_stop(robots, alarm):
    robot = robots()
    act, stop, enough = robot.act, robot.stop, []

    def begin(action):
        if len(robot.actions) == 2:
            enough.append(alarm())
        act(action)

    def slow():
        time.sleep(0.2)
        stop()
        enough[0].set()

    robot.act, robot.stop = begin, slow
    running = controller(robot)
    with pytest.raises(TimeIsUp):
        running.run(seconds=60)
    assert len(robot.stops) == 1 and running.log.end.cause == "TimeIsUp" and robot.acts_after_stop == 0


@pytest.mark.parametrize("error", (OSError, SystemExit, KeyboardInterrupt, GeneratorExit, TimeIsUp))
@pytest.mark.parametrize("call", ("observe", "act", "stop", "until", "reset", "plan", "close"))
@pytest.mark.parametrize("kind", ("thread", "inline"))
def test_whatever_is_raised_wherever_it_is_one_line_and_the_robot_is_stopped(robots, call, error, kind):
    robot, planner = robots(), Steps()
    running = controller(robot, planner, **({"clock": "paused"} if kind == "inline" else {"worker": "thread"}))
    until = (lambda: False) if call != "until" else None

    def fail(*arguments):
        if call == "stop":
            robot.stops.append("")
        raise error("no more")

    home = {"observe": robot, "act": robot, "stop": robot, "reset": planner, "plan": planner, "close": running.worker}
    if call in home:
        setattr(home[call], call, fail)
    with pytest.raises(SpecpolicyError, match=r"failed: .*no more") as caught:
        running.run(seconds=0.2, until=until or fail)
    assert "\n" not in str(caught.value) and len(robot.stops) == 1 and robot.acts_after_stop == 0
    assert error.__name__ in str(caught.value)


def test_an_exception_whose_text_cannot_be_had(robots):
    class Silent(Exception):
        def __str__(self):
            raise ValueError

    robot = robots()

    def fail():
        raise Silent

    robot.observe = fail
    with pytest.raises(SpecpolicyError, match=r"robot\.observe\(\) failed: Silent"):
        controller(robot).run(seconds=1)
    assert len(robot.stops) == 1


@pytest.mark.parametrize("name", ("stop", "control", "close"))
def test_a_thread_that_cannot_be_started(robots, monkeypatch, name):
    start = threading.Thread.start

    def refuse(self):
        if self.name == name:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    robot = robots()
    running = controller(robot)
    if name == "close":
        running.run(seconds=0.1)
    else:
        with pytest.raises(SpecpolicyError, match="the control loop has not begun: can't start new thread"):
            running.run(seconds=60)
        assert not robot.actions
    assert len(robot.stops) == 1 and running.worker._thread is None


@pytest.mark.parametrize("begun", (False, True))
@pytest.mark.parametrize("name", ("stop", "control"))
def test_what_is_raised_while_a_thread_starts(robots, monkeypatch, name, begun):
    start = threading.Thread.start

    def interrupted(self):
        if self.name != name or begun:
            start(self)
        if self.name == name:
            raise TimeIsUp

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    robot = robots()
    running = controller(robot)
    with pytest.raises(TimeIsUp):
        running.run(seconds=60)
    assert len(robot.stops) == 1 and robot.acts_after_stop == 0 and running.log.end.cause == "TimeIsUp"
    monkeypatch.undo()
    running.run(seconds=0.1)
    assert len(robot.stops) == 2


def test_a_stop_that_is_slower_than_the_watchdog_is_waited_for(robots, caplog):
    robot = robots()
    stop = robot.stop

    def slow():
        robot.released.wait(0.5)
        stop()

    robot.stop = slow
    log = controller(robot, watchdog=0.2).run(seconds=0.1)
    assert robot.stops == ["control"] and log.end.stop_seconds > 0.2 and log.end.cause == "the time was over"
    assert "robot.stop() has not come back yet" in caplog.text


def test_a_worker_whose_end_hangs_is_left_behind(robots, monkeypatch):
    monkeypatch.setattr("specpolicy.control.supervisor.CLOSE_SECONDS", 0.2)
    assert CLOSE_SECONDS > 5  # a process is given one second before it is killed
    robot = robots()

    class Stuck(ThreadWorker):
        def close(self):
            robot.released.wait()

    with pytest.raises(SpecpolicyError, match=r"worker\.close\(\) has not come back"):
        controller(robot, worker=Stuck(Steps())).run(seconds=0.1)
    assert robot.stops == ["control"]


def test_a_controller_whose_last_run_still_hangs_in_the_robot_refuses_another(robots):
    robot = robots("act hang")
    running = controller(robot, watchdog=0.2)
    with pytest.raises(SpecpolicyError, match=r"robot\.act\(\) has not come back .*\d ms after its time was up"):
        running.run(seconds=60)
    assert running.log.end.stop_after >= 0 and running.log.end.cause.startswith("robot.act() has not come back")
    with pytest.raises(SpecpolicyError, match=r"last run has not ended: it is still at robot\.act\(\)"):
        running.run(seconds=60)
    robot.fault = None
    robot.released.set()
    while running._supervisor.running is not None:
        time.sleep(0.01)
    assert robot.stops == ["stop", "control"]  # behind the late action
    running.watchdog = 60.0
    running.run(seconds=0.1)
    assert len(robot.stops) == 3


def test_a_run_that_has_ended_begins_nothing(robots):
    """Whatever call it ends in: no other one follows, and inference is not started."""
    robot = robots()

    def position():
        os.kill(os.getpid(), signal.SIGINT)
        robot.released.wait(1.0)
        return np.zeros(2)

    robot.position, worker, resets = position, ThreadWorker(Steps()), []
    worker.reset = resets.append
    running = controller(robot, worker=worker, limits=Limits(rate=1.0))
    with pytest.raises(KeyboardInterrupt):
        running.run(seconds=60)
    robot.released.set()
    while running._supervisor.running is not None:
        time.sleep(0.01)
    assert not resets and not robot.observed and len(robot.stops) == 1


def test_inference_that_starts_while_it_is_closed_is_closed_again(robots):
    class Late(ThreadWorker):
        open, closing = False, threading.Event()

        def reset(self, seed):
            os.kill(os.getpid(), signal.SIGINT)
            self.closing.wait()
            self.open = True

        def close(self):
            self.open = False
            self.closing.set()

    robot, worker = robots(), Late(Steps())
    running = controller(robot, worker=worker)
    with pytest.raises(KeyboardInterrupt):
        running.run(seconds=60)
    while running._supervisor.running is not None:
        time.sleep(0.01)
    assert not worker.open and not robot.observed and len(robot.stops) == 1


@pytest.mark.parametrize("stop_hangs", (False, True))
@pytest.mark.parametrize("number", range(15))
def test_an_action_that_is_late_never_has_the_last_word(stop_hangs, number):
    """Whenever it comes back: before, while and after the robot is stopped; also where the stop hangs until then."""
    record, returned, first = [], threading.Event(), threading.Lock()

    def act(action):
        threading.Timer(0.002, supervisor.end, ["a test"]).start()
        time.sleep(0.002 * number)
        record.append("act")
        returned.set()

    def stop():
        record.append("stop")
        if stop_hangs and first.acquire(blocking=False):
            returned.wait()

    def loop():
        supervisor.begins("robot.act()")
        supervisor.act(act, None)
        return "the time was over"

    supervisor = Supervisor(stop, lambda: None, period=0.01, watchdog=None)
    supervisor.run(loop)
    while supervisor.running is not None:
        time.sleep(0.001)
    assert record[-1] == "stop" and record.count("act") == 1 and 1 <= record.count("stop") <= 2, record
