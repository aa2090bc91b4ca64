"""Delay between the watchdog's limit and the stop of a robot whose `act` hangs, and the watchdog's cost.

    python benchmarks/watchdog_latency.py --runs 100

Each run hangs in another action, a few steps after its start. The robot measures the time from the beginning of that
call to that of `stop`, minus the watchdog's limit. The cost is processor time per control step. `load` says how busy
the machine was.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import timeit

import numpy as np

from specpolicy.control import Chunk, Controller
from specpolicy.control.waiting import Watch
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.provenance import hardware, load


class Still:
    """A planner that stands still."""

    n_obs_steps, n_action_steps = 1, 4

    def reset(self, seed: int) -> None:
        pass

    def plan(self, history: object) -> Chunk:
        return Chunk(np.zeros((20, 1)))


class Hanging:
    """A robot whose action number `at` returns only when it is stopped."""

    def __init__(self, at: int):
        self.left, self.released = at, threading.Event()
        self.hung = self.stopped = 0.0

    def observe(self) -> dict[str, np.ndarray]:
        return {"state": np.zeros(1)}

    def act(self, action: np.ndarray) -> None:
        self.left -= 1
        if self.left < 0:
            self.hung = time.perf_counter()
            self.released.wait()

    def stop(self) -> None:
        self.stopped = self.stopped or time.perf_counter()
        self.released.set()


def lateness(watchdog: float, hz: float, at: int) -> float:
    """Return the seconds of one run."""
    robot = Hanging(at)
    controller = Controller(Still(), robot, hz=hz, worker="thread", watchdog=watchdog, warm_up=1)
    try:
        controller.run(seconds=60)
    except SpecpolicyError as error:
        if "robot.act() has not come back" not in str(error):
            raise
    return robot.stopped - robot.hung - watchdog


def cost() -> dict[str, float]:
    """Return processor seconds of one `begins`, without and with a waiting thread to wake.

    The control loop calls it five times a step.
    """
    watch, number = Watch(), 200_000
    watch.sleep(0.0)
    far = timeit.timeit(lambda: watch.begins("robot.act()", 0.0, 0.5), timer=time.process_time, number=number) / number

    def sleep() -> None:
        while not over:
            watch.sleep()

    def wake() -> None:
        watch._wakes = float("inf")
        watch.begins("robot.act()", 0.0, 0.5)

    over: list[bool] = []
    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    near = timeit.timeit(wake, timer=time.process_time, number=20_000) / 20_000
    over.append(True)
    watch.wake()
    sleeper.join()
    return {"without waking": far, "waking": near}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--watchdog", type=float, nargs="+", default=[0.05, 0.5])
    parser.add_argument("--hz", type=float, default=20.0)
    arguments = parser.parse_args()
    print(json.dumps({"machine": hardware(), "load": load()}))
    for watchdog in arguments.watchdog:
        late = 1e3 * np.array([lateness(watchdog, arguments.hz, 3 + run % 5) for run in range(arguments.runs)])
        median, worst = np.median(late), late.max()
        print(f"watchdog {watchdog:g} s, {arguments.runs} runs: stopped {median:.2f} ms late, at most {worst:.2f} ms")
    for name, seconds in cost().items():
        print(f"being watched, {name}: {1e6 * seconds:.1f} us of processor time a call to the robot")


if __name__ == "__main__":
    main()
