"""The real-time control loop: a policy moves a robot, one action per control period."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from specpolicy.control.checks import check_observation
from specpolicy.control.chunk import Planner
from specpolicy.control.clock import Clock, WallClock, make_clock
from specpolicy.control.execution import Execution
from specpolicy.control.limits import Limits
from specpolicy.control.pilot import Pilot
from specpolicy.control.planner import Policy, as_planner, check_stitching
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.robot import Robot, standing
from specpolicy.control.signals import EndingSignals
from specpolicy.control.supervisor import STOP_SECONDS, Supervisor
from specpolicy.control.timing import TimingLog
from specpolicy.control.warming import warm_up
from specpolicy.control.worker import READY_SECONDS, WORKERS, InlineWorker, ThreadWorker, Worker
from specpolicy.errors import SpecpolicyError
from specpolicy.rates import check_rate

LOGGER = logging.getLogger("specpolicy.control")


class Controller:
    """Runs a policy on a robot.

    Before the first control step the policy is warmed up and plans its first chunk; then, in every period: observe,
    hand the newest observations to inference if a new chunk is wanted, act. Inference runs beside the loop. Whatever
    ends the run, the robot is stopped within one period of its being noticed, before anything else; docs/control.md
    lists the cases.

    Args:
        policy: from `specpolicy.load_policy`, or a planner of your own (see `Planner`).
        robot: see `Robot`.
        hz: control steps per second. A policy trained at another rate is refused.
        sampler: how the policy draws chunks: a name, or a result of `specpolicy.make_sampler`; None: its best sampler.
        clock: "wall"; or "paused", "delay" and "charged" for a simulated robot, whose world then takes a step for each
            action; or a clock of your own.
        worker: where inference runs beside the wall clock: "process", "thread", or a worker of your own. For the
            default a script needs the usual `if __name__ == "__main__":`.
        execute_steps, lead, on_miss, stitching, ensemble_decay, hold, in_flight: see `Execution`.
        limits: of the actions, see `Limits`. A rate limit needs the robot's first position, from `robot.position()` or
            `start`. Without it, the rate limit is refused on the wall clock; in a simulated world the first action then
            has no rate limit.
        start: position of the robot when the first run begins, as an action (see `Robot`); it overrides
            `robot.position()`.
        watchdog: seconds that one call to the robot (or of `until`) may take before the robot is stopped; None for any
            time.
        stop_timeout: seconds to wait for the robot's `stop` before `run` raises the error; more for a robot that takes
            longer to come to rest.
        inference_timeout: seconds after which inference counts as hung; None for ten times the slowest warm-up call
            (without warm-up, the first call), but at least one second.
        warm_up: calls before the first control step; the timing report leaves them out.
        seed: seed of the policy's random numbers.
        any_rate: run a policy at another rate than it was trained at; its motions become faster or slower.
    """

    def __init__(
        self,
        policy: Policy | Planner,
        robot: Robot,
        *,
        hz: float,
        sampler: Any = None,
        clock: str | Clock = "wall",
        worker: str | Worker = "process",
        execute_steps: int | None = None,
        lead: int | None = None,
        on_miss: str = "continue_chunk",
        stitching: str = "continue_chunk",
        ensemble_decay: float = 0.01,
        hold: tuple[float | None, ...] | None = None,
        in_flight: int = 1,
        limits: Limits | None = None,
        start: Any = None,
        watchdog: float | None = 0.5,
        stop_timeout: float = STOP_SECONDS,
        inference_timeout: float | None = None,
        warm_up: int = 3,
        seed: int = 0,
        any_rate: bool = False,
    ):
        seconds = {"watchdog": watchdog, "stop_timeout": stop_timeout, "inference_timeout": inference_timeout}
        for name, value in {"hz": hz, **seconds}.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SpecpolicyError(f"{name}={value}: expected a positive number")
        for method in ("observe", "act", "stop"):
            if not callable(getattr(robot, method, None)):
                raise SpecpolicyError(f"{type(robot).__name__} is no robot: it has no method {method}()")
        if warm_up < 0:
            raise SpecpolicyError(f"warm_up={warm_up}: expected 0 or more calls")
        self.robot, self.hz, self.limits = robot, float(hz), limits
        self._start = start
        self.execution = Execution(execute_steps, lead, on_miss, stitching, ensemble_decay, hold, in_flight)
        self.clock = make_clock(clock, hz) if isinstance(clock, str) else clock
        planner = as_planner(policy, sampler)
        check_stitching(planner, self.execution)
        trained = getattr(planner, "control_hz", None)
        check_rate(trained, self.hz, "the control loop", f"give hz={trained}", any_rate)
        self.worker = self._make_worker(planner, worker)
        self.execution.check(getattr(self.worker, "continues", False), self.clock.simulated)
        self.watchdog, self.inference_timeout, self.stop_timeout = watchdog, inference_timeout, stop_timeout
        self.warm_up, self.seed = warm_up, seed
        self.log = TimingLog(self.hz, self.clock.name, self.worker.name, warm_up)
        self._supervisor: Supervisor | None = None
        self._began: float | None = None  # moment of control step 0

    def run(
        self, seconds: float | None = None, until: Callable[[], bool] = lambda: False, *, start: Any = None
    ) -> TimingLog:
        """Control the robot until `seconds` of control steps are over or `until()` is true, then stop it. The last
        action, too, has a whole control period before the stop.

        `log` holds the times of the run also when this raises, and `log.end` says how it ended. Signals that would end
        the program stop the robot first (see `EndingSignals`). Python handles signals in the main thread only. If
        another thread calls this, the program has to handle signals itself (see docs/control.md).

        Args:
            seconds: counted from control step 0; None for no limit.
            until: called before each control step, for instance to test whether the task is done.
            start: the robot's present position, as an action; None: that of `robot.position()`, or `start` of the
                `Controller` as long as it has sent no action.

        Raises:
            SpecpolicyError: any failure. The robot has been stopped.
            KeyboardInterrupt: Ctrl-C. The robot has been stopped.
            SystemExit: another signal that asks the program to end. If the program has its own handler for it, that is
                called instead. The robot has been stopped.
        """
        if self._supervisor is not None and (doing := self._supervisor.running) is not None:
            raise SpecpolicyError(f"the controller's last run has not ended: it is still at {doing}")
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise SpecpolicyError(f"seconds={seconds}: expected a positive number, or None for no limit")
        steps = math.inf if seconds is None else max(1, round(seconds * self.hz))
        self.log = TimingLog(self.hz, self.clock.name, self.worker.name, self.warm_up)
        self._began = None
        if start is None:
            start = self._start
        supervisor = self._supervisor = Supervisor(
            self.robot.stop, self.worker.close, 1.0 / self.hz, self.watchdog, self.stop_timeout
        )
        with EndingSignals(supervisor.end) as signals:
            if not signals.installed:
                LOGGER.warning("run() is not in the main thread: signals such as SIGTERM are left to the program")
            try:
                with _quiet_garbage_collector():
                    supervisor.run(lambda: self._control(supervisor, steps, until, start))
            finally:
                self.log.end = supervisor.ended
                self._count_periods(supervisor.stopped, steps)
        return self.log

    def _control(self, supervisor: Supervisor, steps: float, until: Callable[[], bool], start: Any) -> str:
        """Run the loop; return why it ended. The `supervisor` is told beforehand of every call that might hang."""
        worker, clock, robot = self.worker, self.clock, self.robot
        self._standing(supervisor, start)
        supervisor.begins("the start of inference", READY_SECONDS, always=True)
        worker.reset(self.seed)
        slowest = self._warm_up(supervisor)
        # Without a warm-up the first chunk pays for everything that is slow at first.
        timeout = self.inference_timeout or (max(1.0, 10 * slowest) if self.warm_up else READY_SECONDS)
        bounds = getattr(robot, "bounds", None)
        pilot = Pilot(worker, clock, self.hz, self.execution, self.limits, timeout=timeout, log=self.log, bounds=bounds)
        supervisor.begins("robot.observe()")
        first = check_observation(robot.observe())
        supervisor.begins("inference", timeout, always=True)
        pilot.begin(first, slowest)
        if not self.warm_up and self.inference_timeout is None:
            pilot.timeout = timeout = max(1.0, 10 * (self.log.chunks[0].seconds or 0.0))
        stands = self._standing(supervisor, start)  # again: it may have moved meanwhile
        if stands is not None:
            pilot.start_at(stands)
        clock.reset(self.seed)
        began = self._began = time.perf_counter()
        step = 0
        while step < steps:
            supervisor.begins("until()")
            if until():
                return "until()"
            step = self._wait_until(supervisor, step)
            if step >= steps:
                break
            now = step / self.hz if clock.simulated else time.perf_counter() - began
            supervisor.begins("robot.observe()")
            observation = check_observation(robot.observe(), like=first)
            supervisor.begins("inference", timeout, always=True)
            command = pilot.tick(step, now, observation)
            since = pilot.pending_since
            if since is not None and not clock.simulated and now - since > timeout:
                raise SpecpolicyError(f"inference has not answered for {now - since:.2g} s: the robot is stopped")
            if command.send or clock.simulated:
                supervisor.begins("robot.act()")
                supervisor.act(self._act, command.action)
            step += 1
        if step == steps and not clock.simulated:  # the last action has its time, too
            self._wait_until(supervisor, step)
        self.log.reached = int(steps)
        return "the time was over"

    def _wait_until(self, supervisor: Supervisor, step: int) -> int:
        supervisor.begins("the wait for the next control step", 1.0 / self.hz)
        return self.clock.wait_until(step)

    def _act(self, action: np.ndarray) -> None:
        self._start = None  # from here on the robot is somewhere else
        self.robot.act(action)

    def _count_periods(self, stopped: float | None, steps: float) -> None:
        """Record the control steps that were over when the robot was stopped, also where a call hung through them.
        Only of our own clock is it known at what moments they begin."""
        if isinstance(self.clock, WallClock) and stopped is not None and self._began is not None:
            passed = math.floor((stopped - self._began) * self.hz)
            self.log.reached = max(self.log.reached, int(min(passed, steps)))

    def _standing(self, supervisor: Supervisor, start: Any) -> np.ndarray | None:
        """Return the robot's position as an action, if known. Raise where it is needed and unknown."""
        limited = self.limits is not None and self.limits.rate is not None
        if not limited and start is None:
            return None
        supervisor.begins("robot.position()")
        found = standing(self.robot, start)
        if found is None and limited and not self.clock.simulated:
            raise SpecpolicyError(
                "a limit on the rate counts from where the robot stands: give the robot a method position() that "
                "returns that as an action, or give start="
            )
        return found

    def _warm_up(self, supervisor: Supervisor) -> float:
        """Plan a few chunks and discard them; return the seconds of the slowest after the first."""
        observation: Mapping[str, Any] = {}
        if self.warm_up:
            supervisor.begins("robot.observe()")
            observation = check_observation(self.robot.observe())

        def begins() -> None:
            supervisor.begins("inference", READY_SECONDS, always=True)

        slowest = warm_up(self.worker, observation, self.warm_up, self.execution, self.clock, begins, supervisor.check)
        supervisor.begins("the start of inference", READY_SECONDS, always=True)
        self.worker.reset(self.seed)
        return slowest

    def _make_worker(self, planner: Planner, worker: str | Worker) -> Worker:
        if not isinstance(worker, str):
            return worker
        if worker not in WORKERS:
            raise SpecpolicyError(f"unknown worker '{worker}': use one of {', '.join(WORKERS)}")
        if self.clock.simulated or worker == "inline":
            return InlineWorker(planner)
        return ThreadWorker(planner) if worker == "thread" else ProcessWorker(planner)


@contextlib.contextmanager
def _quiet_garbage_collector() -> Iterator[None]:
    """Keep Python's collector from scanning all imported objects in the middle of a control period.

    A program that has frozen objects itself stays as it is: there is no way to unfreeze only what came later.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
