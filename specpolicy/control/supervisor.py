"""Runs a control loop so that the robot is stopped whatever happens: an error, a call that hangs, Ctrl-C.

The loop has a thread of its own, the calling thread watches it. So a call to the robot that never comes back keeps
neither `stop` from being called nor the error from being raised, and Ctrl-C never tears a call to the robot apart.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from specpolicy.errors import SpecpolicyError

STOP_SECONDS = 1.0  # what robot.stop() may take where no watchdog says otherwise
GRACE_SECONDS = 0.5  # beyond its own time, for what is watched although no watchdog was asked for
STOPPING = "robot.stop()"


class Ended(Exception):
    """Raised in the loop after the run has been ended from outside."""


class Supervisor:
    """Watches one run of a control loop.

    Args:
        stop: stops the robot. Called once: by the loop's thread, or by another if that does not come to it.
        period: seconds of a control period: the longest that the stopping is left to the loop.
        watchdog: seconds that the loop may take for one call; None for any time.
    """

    def __init__(self, stop: Callable[[], None], period: float, watchdog: float | None):
        self._stop, self._period = stop, period
        self._watchdog = math.inf if watchdog is None else watchdog
        self._ending = threading.Event()
        self._finished = threading.Event()
        self._at_rest = threading.Event()
        self._claim = threading.Lock()
        self._claimed = threading.Event()
        self._acting = threading.Lock()
        self._errors: list[BaseException] = []
        self._doing, self._deadline, self._patience = "", math.inf, self._watchdog

    def run(self, loop: Callable[[], None]) -> None:
        """Run `loop` to its end, stop the robot, and raise what went wrong.

        Raises:
            SpecpolicyError: an exception in the loop or in `stop`, or a call that hung.
            KeyboardInterrupt: Ctrl-C, or whatever another signal handler raised.
        """
        self.begins("the start of the loop")
        try:
            threading.Thread(target=self._work, args=(loop,), name="control", daemon=True).start()
            self._watch()
        except BaseException as error:
            # A loop that works sees within a period that the run has ended; one that hangs is not waited for.
            self._ending.set()
            self._stop_soon(0.0 if isinstance(error, SpecpolicyError) else self._period)
            raise _summed_up([error, *self._errors]) from error
        if self._errors:
            raise _summed_up(self._errors) from self._errors[0].__cause__

    def begins(self, doing: str, seconds: float = 0.0, always: bool = False) -> None:
        """Say what the loop does next, and how long that may take beyond the watchdog's time.

        Args:
            always: it is watched even if there is no watchdog.
        """
        self._patience = GRACE_SECONDS if always and math.isinf(self._watchdog) else self._watchdog
        self._doing, self._deadline = doing, time.perf_counter() + seconds + self._patience

    def check(self) -> None:
        """Raise `Ended` in a loop that is to end."""
        if self._ending.is_set():
            raise Ended

    def act(self, call: Callable[[Any], object], action: Any) -> None:
        """Call `call(action)`, but never once the robot is being stopped."""
        with self._acting:
            self.check()
            call(action)

    def _work(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Ended:
            pass
        except BaseException as error:
            self._errors.append(error if isinstance(error, SpecpolicyError) else self._described(error))
        finally:
            self.begins(STOPPING)
            self._stop_once()
            self._finished.set()

    def _watch(self) -> None:
        """Wait for the end of the loop; raise if one of its calls takes too long."""
        while not self._finished.wait(min(1.0, self._left())):
            doing = self._doing
            if self._left() <= 0:
                seconds = f"{self._patience:g} s or more"
                what = "the robot may still move" if doing == STOPPING else "the robot is stopped"
                raise SpecpolicyError(f"{doing} has not come back for {seconds}: {what}")

    def _left(self) -> float:
        return max(0.0, self._deadline - time.perf_counter())

    def _stop_soon(self, seconds: float) -> None:
        """Give the loop `seconds` to stop the robot, then do it beside the loop. Further Ctrl-C do not get between."""
        if not _wait(self._claimed, seconds):
            # In a thread again, because a driver that hangs in one call may well hang in this one.
            threading.Thread(target=self._stop_once, name="stop", daemon=True).start()
        if not _wait(self._at_rest, min(self._watchdog, STOP_SECONDS)):
            self._errors.append(SpecpolicyError("robot.stop() has not come back: the robot may still move"))

    def _stop_once(self) -> None:
        with self._claim:
            if self._claimed.is_set():
                return
            self._claimed.set()
        self._ending.set()
        acting = self._acting.acquire(blocking=False)  # an action that hangs does not keep us from stopping
        try:
            self._stop()
        except Exception as error:
            self._errors.append(SpecpolicyError(f"robot.stop() failed: {type(error).__name__}: {error}"))
        finally:
            self._at_rest.set()
            if acting:
                self._acting.release()

    def _described(self, error: BaseException) -> SpecpolicyError:
        described = SpecpolicyError(f"{self._doing} failed: {type(error).__name__}: {error}")
        described.__cause__ = error
        return described


def _wait(event: threading.Event, seconds: float) -> bool:
    """`event.wait(seconds)`, which Ctrl-C does not cut short."""
    deadline = time.perf_counter() + seconds
    while True:
        try:
            return event.wait(max(0.0, deadline - time.perf_counter()))
        except KeyboardInterrupt:
            continue


def _summed_up(errors: list[BaseException]) -> BaseException:
    """The first error; what else went wrong is told with it, unless the first is an interruption."""
    first = errors[0]
    if len(errors) == 1 or not isinstance(first, SpecpolicyError):
        return first
    return SpecpolicyError("; ".join(str(error) for error in errors))
