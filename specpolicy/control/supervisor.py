"""Runs a control loop so that the robot is stopped whatever ends the run, and nothing gets between.

Three threads: the loop's; a guard's, which sleeps until the time of what the loop does is up or the run is to end, and
then stops the robot if the loop does not come to it; and the calling one, which waits until the robot is at rest and
raises what went wrong. So a call to the robot that never comes back keeps neither `stop` from being called nor the
error from being raised, and whatever is raised into the calling thread (by a signal handler, say) cuts nothing short.
"""

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from specpolicy.control.signals import EndingSignals
from specpolicy.control.timing import RunEnd
from specpolicy.control.waiting import Latch, Watch
from specpolicy.control.worker import Closed
from specpolicy.errors import SpecpolicyError

LOGGER = logging.getLogger("specpolicy.control")

STOP_SECONDS = 5.0  # what robot.stop() may take until run() goes on without it
CLOSE_SECONDS = 10.0  # the same for worker.close(), which may have a process to end
GRACE_SECONDS = 0.5  # for the loop to end by itself; and beyond its own time, for what no watchdog was asked for


class Ended(Exception):
    """Raised in the loop after the run has been ended from outside."""


class Supervisor:
    """Watches one run of a control loop.

    Args:
        stop: stops the robot. Called once: by the loop's thread, or by the guard's if that does not come to it. Then a
            second time by the loop's if `act` comes back after that.
        close: releases what the loop used, when the robot is at rest.
        period: seconds of a control period.
        watchdog: seconds that the loop may take for one call; None for any time.
        stop_timeout: seconds that `stop` is waited for.
    """

    def __init__(
        self,
        stop: Callable[[], object],
        close: Callable[[], object],
        period: float,
        watchdog: float | None,
        stop_timeout: float = STOP_SECONDS,
    ):
        self._stop, self._close = stop, close
        self._watchdog = math.inf if watchdog is None else watchdog
        self._grace, self._stop_timeout = min(period, GRACE_SECONDS), stop_timeout
        self._watch = Watch()
        self._ends: list[tuple[float, str]] = []  # when it was to end, and why; the first one counts
        self._stopping, self._at_rest, self._finished, self._closed = Latch(), Latch(), Latch(), Latch()
        self._claim, self._claimed = threading.Lock(), False
        self._over = False  # the loop has come to its end, and stops the robot next
        self._acting = threading.Lock()
        self._late = False  # an action was under way when the robot was stopped
        self._called = self._returned = self._again = 0.0  # when `stop` was called, returned, and was called again
        self._errors: list[SpecpolicyError] = []
        self._interruptions: list[BaseException] = []
        self._closing: float | None = None
        self._process = os.getpid()

    @property
    def running(self) -> str | None:
        """What the loop is at, None if it has come to its end."""
        return None if self._finished.is_set else self._watch.task.name

    @property
    def ended(self) -> RunEnd | None:
        """How the run ended; None if the robot has not been stopped."""
        if not (self._stopping.is_set and self._ends):
            return None
        noticed, cause = self._ends[0]
        seconds = self._returned - self._called if self._at_rest.is_set else None
        return RunEnd(cause, max(0.0, self._called - noticed), seconds)

    def run(self, loop: Callable[[], str]) -> None:
        """Run `loop`, which returns why it ended, stop the robot, and raise what went wrong.

        Raises:
            SpecpolicyError: an exception in the loop, in `stop` or in `close`, or a call that hung.
            BaseException: what was raised into this thread meanwhile.
        """
        atexit.register(self._leave)
        try:
            begun = attended = False
            while not attended:
                try:
                    if not begun:
                        begun = True
                        self._start(loop)
                    self._attend()
                    attended = True
                except BaseException as error:
                    self._interruptions.append(error)
                    self.end(type(error).__name__)
        finally:
            self.end("an exception in run()")  # it has ended long since, but for what nobody can foresee
        if not self._at_rest.is_set:
            patience = min(self._watchdog, self._stop_timeout)
            self._errors.append(
                SpecpolicyError(f"robot.stop() has not come back for {patience:g} s or more: the robot may still move")
            )
        if not self._closed.is_set:
            self._errors.append(SpecpolicyError("inference could not be ended: worker.close() has not come back"))
        failed = _summed_up(self._errors)
        if self._interruptions:
            if failed is not None:
                LOGGER.error("%s", failed)
            raise self._interruptions[0] from failed
        if failed is not None:
            raise failed

    def begins(self, doing: str, seconds: float = 0.0, always: bool = False) -> None:
        """Say what the loop does next, and how long that may take beyond the watchdog's time.

        Args:
            always: it is watched even if there is no watchdog.

        Raises:
            Ended: the run has been ended, so nothing more begins.
        """
        self.check()
        patience = GRACE_SECONDS if always and math.isinf(self._watchdog) else self._watchdog
        self._watch.begins(doing, seconds, patience)

    def end(self, cause: str) -> None:
        """End the run: the loop between two calls or, if one of them hangs, beside it. For any thread or handler."""
        self._ends.append((time.perf_counter(), cause))
        self._watch.wake()

    def check(self) -> None:
        """Raise `Ended` in a loop that is to end."""
        if self._ends:
            raise Ended

    def act(self, call: Callable[[Any], object], action: Any) -> None:
        """Call `call(action)`, but never once the robot is being stopped."""
        with self._acting:
            self.check()
            call(action)

    def _start(self, loop: Callable[[], str]) -> None:
        self._watch.begins("the start of the loop", 0.0, self._watchdog)
        guard = threading.Thread(target=self._guard, name="stop", daemon=True)
        control = threading.Thread(target=self._work, args=(loop,), name="control", daemon=True)
        try:
            guard.start()
            control.start()
        except RuntimeError as error:  # there can be no more threads
            self._fail(SpecpolicyError(f"the control loop has not begun: {error}"))
        except BaseException as error:  # should the loop begin after all, it finds itself ended
            self.end(type(error).__name__)
            raise
        finally:
            if control.ident is None:
                self._finished.set()
            if not guard.is_alive():
                self._stop_robot()

    def _attend(self) -> None:
        """Wait until the robot is at rest and all is closed, or has had its time for that. May be called again."""
        self._stopping.wait()
        if not self._at_rest.wait(self._called + min(self._watchdog, self._stop_timeout) - time.perf_counter()):
            LOGGER.warning("robot.stop() has not come back yet: the robot may still move")
            self._at_rest.wait(self._called + self._stop_timeout - time.perf_counter())
        self._wait_for_loop(max(self._called, self._returned))
        if self._closing is None:
            self._closing = time.perf_counter()
            try:
                threading.Thread(target=self._release, name="close", daemon=True).start()
            except RuntimeError:  # the program ends, or may have no more threads
                self._release()
        self._closed.wait(self._closing + CLOSE_SECONDS - time.perf_counter())

    def _wait_for_loop(self, since: float) -> None:
        """It ends soon, unless a call of it hangs. An action that comes back meanwhile is followed by another stop."""
        ended = self._finished.wait(since + GRACE_SECONDS - time.perf_counter())
        if not ended and self._again:
            self._finished.wait(self._again + GRACE_SECONDS + self._stop_timeout - time.perf_counter())

    def _fail(self, error: SpecpolicyError) -> None:
        self._errors.append(error)
        self.end(str(error))

    def _work(self, loop: Callable[[], str]) -> None:
        """The life of the loop's thread."""
        try:
            cause = loop()
            self._over = True
            self.end(cause)
        except (Ended, Closed):
            pass
        except BaseException as error:
            self._over = True
            self._fail(error if isinstance(error, SpecpolicyError) else self._described(error))
        finally:
            self._stop_robot()
            if self._late:
                self._stop_again()
            # The run has not waited for this loop, which may have started inference again since.
            if self._closing is not None and self._closed.wait(CLOSE_SECONDS):
                self._release()
            self._finished.set()
            atexit.unregister(self._leave)

    def _guard(self) -> None:
        """The life of the guard's thread."""
        try:
            self._keep_watch()
        finally:
            self._stop_robot(beside=True)

    def _keep_watch(self) -> None:
        """Return when the robot has been stopped by the loop, or is to be stopped beside it."""
        lapsed = None
        while not self._ends and (lapsed := self._watch.lapsed) is None:
            self._watch.sleep()
        if lapsed is None:
            # A loop that works sees within a period that the run has ended; one that hangs is not waited for.
            noticed, _ = self._ends[0]
            deadline = noticed + (GRACE_SECONDS if self._over else self._grace)
            self._stopping.wait(min(deadline, self._watch.task.deadline) - time.perf_counter())
            return
        late = 1e3 * (time.perf_counter() - lapsed.deadline)
        text = f"{lapsed.name} has not come back for {lapsed.patience:g} s or more: the robot is stopped"
        error = SpecpolicyError(f"{text} ({late:.1f} ms after its time was up)")
        self._errors.append(error)
        self._ends.append((lapsed.deadline, str(error)))

    def _stop_robot(self, beside: bool = False) -> None:
        """Stop the robot, if nobody else does.

        Args:
            beside: the loop may be in the middle of a call.
        """
        with self._claim:
            if self._claimed:
                return
            self._claimed = True
        if beside and self._acting.acquire(blocking=False):
            self._acting.release()  # as the run has ended, no action begins from now on
        else:
            self._late = beside
        self._called = time.perf_counter()
        self._stopping.set()
        try:
            self._stop()
        except BaseException as error:
            self._errors.append(SpecpolicyError(f"robot.stop() failed: {_text(error)}"))
        finally:
            self._returned = time.perf_counter()
            self._at_rest.set()

    def _stop_again(self) -> None:
        """The action that hung has come back, and so may have reached the robot after it had been stopped."""
        self._again = time.perf_counter()
        self._at_rest.wait(GRACE_SECONDS)  # if the first stop hangs, then with this call or for good
        try:
            self._stop()
        except BaseException as error:
            text = f"robot.stop() failed after a late action: {_text(error)}"
            self._errors.append(SpecpolicyError(text))
            LOGGER.error("%s: the robot may still move", text)

    def _release(self) -> None:
        try:
            self._close()
        except BaseException as error:
            self._errors.append(SpecpolicyError(f"worker.close() failed: {_text(error)}"))
        finally:
            self._closed.set()

    def _leave(self) -> None:
        """The program ends while another thread is in `run`, or an action hangs that a run has left behind."""
        if os.getpid() != self._process:  # a fork of this program, in which no loop runs
            return
        with EndingSignals():  # further ones wait for the robot, too
            self.end("the end of the program")
            self._at_rest.wait(self._grace + self._stop_timeout)
            self._wait_for_loop(time.perf_counter())

    def _described(self, error: BaseException) -> SpecpolicyError:
        described = SpecpolicyError(f"{self._watch.task.name} failed: {_text(error)}")
        described.__cause__ = error
        return described


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an exception whose text cannot be had
        return type(error).__name__


def _summed_up(errors: list[SpecpolicyError]) -> SpecpolicyError | None:
    """One error for all: the first, and what else went wrong is told with it."""
    if len(errors) < 2:
        return errors[0] if errors else None
    summary = SpecpolicyError("; ".join(str(error) for error in errors))
    summary.__cause__ = errors[0].__cause__
    return summary
