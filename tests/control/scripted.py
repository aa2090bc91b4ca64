"""Robots and planners that do as they are told, faults included. Worker processes import this module, too."""

import os
import signal
import threading
import time

import numpy as np

from specpolicy.control import Controller
from specpolicy.control.chunk import Chunk
from specpolicy.control.clock import DelayClock
from specpolicy.errors import SpecpolicyError

HZ = 50


class Unreadable(Exception):
    """An exception whose text cannot be read."""

    def __str__(self):
        raise RuntimeError("there is no text")


class Steps:
    """Plans the control steps' own numbers: action k of a chunk for the observation of step t is t + k.

    Args:
        length: actions in a chunk.
        fault: what to do from call `at` on: "raise", "die", "hang", "nan", "shape", "none", "text", "unreadable".
        at: counted from 0.
        seconds: what a call says it took.
        sleep: what it takes.
    """

    def __init__(
        self, length=8, n_obs_steps=1, n_action_steps=4, dimensions=2, fault=None, at=0, seconds=0.0, sleep=0.0
    ):
        self.length, self.n_obs_steps, self.n_action_steps = length, n_obs_steps, n_action_steps
        self.dimensions, self.fault, self.at, self.seconds, self.sleep = dimensions, fault, at, seconds, sleep
        self.histories = []

    def reset(self, seed):
        self.seed, self.histories = seed, []

    def plan(self, history):
        self.histories.append(history)
        time.sleep(self.sleep)
        fault = self.fault if len(self.histories) > self.at else None
        if fault == "raise":
            self.failed = time.perf_counter()
            raise ZeroDivisionError("a planner divided by zero")
        if fault == "die":
            os._exit(3)
        if fault == "hang":
            time.sleep(3600)
        if fault == "none":
            return None
        if fault == "unreadable":
            raise Unreadable
        dimensions = self.dimensions + (fault == "shape")
        actions = np.repeat(history["step"][-1] + np.arange(self.length)[:, None], dimensions, axis=1).astype(float)
        if fault == "nan":
            actions[-1, -1] = np.nan
        return Chunk(
            actions,
            seconds=self.seconds,
            network_seconds=self.seconds / 2,
            calls=3,
            rows=6,
            encode_seconds=self.seconds / 4,
        )


class Numbered(Steps):
    """Plans 1000 times the number of its call, plus the control step's own number; keeps what it is told of.

    Args:
        obeys: whether its chunks begin with the committed actions.
    """

    def __init__(self, obeys=False, **options):
        super().__init__(**options)
        self.obeys, self.told = obeys, []

    def reset(self, seed):
        super().reset(seed)
        self.told = []

    def plan(self, history, committed=None):
        chunk = super().plan(history)
        chunk.actions[:] += 1000 * len(self.told)
        if self.obeys and committed is not None:
            count = min(committed.count, self.length)
            chunk.actions[:count] = committed.actions[:count]
        self.told.append((int(history["step"][-1]), committed))
        return chunk


class Reusing(Steps):
    """Plans into the same array every time."""

    memory = np.zeros((8, 2))

    def plan(self, history):
        self.memory[:] = super().plan(history).actions
        return Chunk(self.memory)


class Lists(Steps):
    """Plans lists of numbers."""

    def plan(self, history):
        return Chunk(super().plan(history).actions.tolist())


def not_there():
    raise AttributeError("Can't get attribute 'Planner' on <module '__main__'>")


class Lost(Steps):
    """A planner of an interactive session: its pickle names a class that no process finds."""

    def __reduce__(self):
        return not_there, ()


def out_of_reach():
    raise SpecpolicyError("the camera is taken: close the other program")


class Explaining(Steps):
    """A planner that no process can make, and that says why."""

    def __reduce__(self):
        return out_of_reach, ()


class Trace(DelayClock):
    """Chunks that take the steps of a list."""

    def __init__(self, steps):
        super().__init__(max(steps))
        self.left = list(steps)

    def usable_step(self, step, seconds):
        return step + self.left.pop(0)


class Recorder:
    """A robot that observes how often it has acted, and keeps what it was told.

    Args:
        fault: what goes wrong: "raise", "none", "key", "more", "nan", "shape", "dtype", "hang" in `observe`; "act",
            "act hang"; "ctrl-c" in `act`; "stop", "stop hang".
        at: in the how manieth call of that method, counted from 0.
    """

    def __init__(self, fault=None, at=3):
        self.fault, self.at = fault, at
        self.observed = 0
        self.actions, self.moments = [], []
        self.stops = []
        self.acts_after_stop = 0
        self.released = threading.Event()  # lets a call that hangs go on

    def observe(self):
        self.observed += 1
        if self.observed > self.at:
            if self.fault == "raise":
                raise ConnectionError("the camera is gone")
            if self.fault == "hang":
                self.released.wait()
            broken = {
                "none": None,
                "key": {"other": np.zeros(1)},
                "nan": {"step": np.array(np.nan)},
                "shape": {"step": np.zeros(2)},
                "dtype": {"step": np.array(3.0, np.float32)},
                "more": {"step": np.array(3.0), "more": np.zeros(1)},
                "text": {"step": np.array("three")},
            }
            if self.fault in broken:
                return broken[self.fault]
        return {"step": np.array(float(len(self.actions)))}

    def act(self, action):
        self.acts_after_stop += len(self.stops)
        if len(self.actions) >= self.at:
            if self.fault == "act":
                raise OSError("the arm does not answer")
            if self.fault == "act hang":
                self.released.wait()
            if self.fault == "ctrl-c" and len(self.actions) == self.at:
                os.kill(os.getpid(), signal.SIGINT)
        self.actions.append(np.array(action))
        self.moments.append(time.perf_counter())

    def stop(self):
        self.stops.append(threading.current_thread().name)
        if self.fault == "stop":
            raise OSError("the brake does not answer")
        if self.fault == "stop hang":
            self.released.wait()


def controller(robot, planner=None, **options):
    """One that is patient with a slow machine."""
    options = {"hz": HZ, "worker": "thread", "warm_up": 1, "inference_timeout": 60.0, "watchdog": 60.0, **options}
    return Controller(planner or Steps(), robot, **options)
