"""Runs a control loop so that the robot is stopped first, whatever ends the run.

There are three threads. The loop's thread runs the loop. The guard's thread sleeps until a call of the loop exceeds its
time or the run is to end, and then stops the robot if the loop does not do so. The calling thread waits until the robot
is at rest and raises the error. So a hanging call to the robot delays neither `stop` nor the error, and an exception
raised in the calling thread (by a signal handler, say) interrupts nothing.
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
from specpolicy.errors import SpecpolicyError, error_text, failed, summed_up

LOGGER = logging.getLogger("specpolicy.control")

STOP_SECONDS = 5.0  # longest wait for robot.stop() before run() goes on without it
CLOSE_SECONDS = 10.0  # the same for worker.close(), which may have a process to end
GRACE_SECONDS = 0.5  # for the loop to end by itself; and beyond its own time, for calls without a watchdog
START_SECONDS = 5.0  # for the threads of the loop, on a machine that is busy


class Ended(Exception):
    """Raised in the loop after the run has been ended from outside."""


class Supervisor:
    """Watches one run of a control loop.

    Args:
        stop: stops the robot. The loop's thread calls it once, or the guard's if that does not get to it. The loop's
            thread calls it a second time if `act` returns after that.
        close: releases the loop's resources, when the robot is at rest.
        period: seconds of a control period.
        watchdog: seconds that one call of the loop may take; None for any time.
        stop_timeout: seconds to wait for `stop`.
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
        self._ends: list[tuple[float, str]] = []  # when and why it was to end; the first entry counts
        self._stopping, self._at_rest, self._finished, self._closed = Latch(), Latch(), Latch(), Latch()
        self._claim, self._claimed = threading.Lock(), False
        self._over = False  # the loop has ended, and stops the robot next
        self._acting = threading.Lock()
        self._late = False  # an action was under way when the robot was stopped
        self._called = self._returned = self._again = 0.0  # when `stop` was called, returned, and was called again
        self._errors: list[SpecpolicyError] = []
        self._interruptions: list[BaseException] = []
        self._closing: float | None = None
        self._process = os.getpid()

    @property
    def running(self) -> str | None:
        """The loop's present call, None if the loop has ended."""
        return None if self._finished.is_set else self._watch.task.name

    @property
    def ended(self) -> RunEnd | None:
        """The end of the run; None if the robot has not been stopped."""
        if not (self._stopping.is_set and self._ends):
            return None
        noticed, cause = self._ends[0]
        seconds = self._returned - self._called if self._at_rest.is_set else None
        return RunEnd(cause, max(0.0, self._called - noticed), seconds)

    @property
    def stopped(self) -> float | None:
        """When the robot's `stop` was called, as `time.perf_counter` tells it; None before that."""
        return self._called if self._stopping.is_set else None

    def run(self, loop: Callable[[], str]) -> None:
        """Run `loop`, which returns why it ended, stop the robot, and raise any error.

        Raises:
            SpecpolicyError: an exception in the loop, in `stop` or in `close`, or a call that hung.
            BaseException: an exception raised into this thread meanwhile.
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
            self.end("an exception in run()")  # usually it has ended already; this is for the unforeseen
        if not self._at_rest.is_set:
            patience = min(self._watchdog, self._stop_timeout)
            self._errors.append(
                SpecpolicyError(f"robot.stop() has not come back for {patience:g} s or more: the robot may still move")
            )
        if not self._closed.is_set:
            self._errors.append(SpecpolicyError("inference could not be ended: worker.close() has not come back"))
        failure = summed_up(self._errors)
        if self._interruptions:
            if failure is not None:
                LOGGER.error("%s", failure)
            raise self._interruptions[0] from failure
        if failure is not None:
            raise failure

    def begins(self, doing: str, seconds: float = 0.0, always: bool = False) -> None:
        """Announce the loop's next call, and the time it may take beyond the watchdog's.

        Args:
            doing: name of the call, for messages.
            seconds: time beyond the watchdog's.
            always: watch it even without a watchdog.

        Raises:
            Ended: the run has been ended, so nothing more begins.
        """
        self.check()
        patience = GRACE_SECONDS if always and math.isinf(self._watchdog) else self._watchdog
        self._watch.begins(doing, seconds, patience)

    def end(self, cause: str) -> None:
        """End the run: the loop stops between two calls or, if a call hangs, the guard stops the robot. For any thread
        or handler."""
        self._ends.append((time.perf_counter(), cause))
        self._watch.wake()

    def check(self) -> None:
        """Raise `Ended` if the run has been ended."""
        if self._ends:
            raise Ended

    def act(self, call: Callable[[Any], object], action: Any) -> None:
        """Call `call(action)`, but never after the stop of the robot has begun."""
        with self._acting:
            self.check()
            call(action)

    def _start(self, loop: Callable[[], str]) -> None:
        self._watch.begins("the start of the loop", START_SECONDS, self._watchdog)  # no call to the robot: it may wait
        guard = threading.Thread(target=self._guard, name="stop", daemon=True)
        control = threading.Thread(target=self._work, args=(loop,), name="control", daemon=True)
        try:
            guard.start()
            control.start()
        except RuntimeError as error:  # no more threads can be started
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
        """Wait until the robot is at rest and all is closed, or their time is over. May be called again."""
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
        """Wait for the loop, which ends soon unless a call hangs. An action that returns meanwhile is followed by
        another stop."""
        ended = self._finished.wait(since + GRACE_SECONDS - time.perf_counter())
        if not ended and self._again:
            self._finished.wait(self._again + GRACE_SECONDS + self._stop_timeout - time.perf_counter())

    def _fail(self, error: SpecpolicyError) -> None:
        self._errors.append(error)
        self.end(str(error))

    def _work(self, loop: Callable[[], str]) -> None:
        """Run the loop's thread."""
        try:
            cause = loop()
            self._over = True
            self.end(cause)
        except (Ended, Closed):
            pass
        except BaseException as error:
            self._over = True
            self._fail(error if isinstance(error, SpecpolicyError) else failed(self._watch.task.name, error))
        finally:
            self._stop_robot()
            if self._late:
                self._stop_again()
            # The run did not wait for this loop, which may have started inference again since.
            if self._closing is not None and self._closed.wait(CLOSE_SECONDS):
                self._release()
            self._finished.set()
            atexit.unregister(self._leave)

    def _guard(self) -> None:
        """Run the guard's thread."""
        try:
            self._keep_watch()
        finally:
            self._stop_robot(beside=True)

    def _keep_watch(self) -> None:
        """Return when the loop has stopped the robot, or when the guard has to."""
        lapsed = None
        while not self._ends and (lapsed := self._watch.lapsed) is None:
            self._watch.sleep()
        if lapsed is None:
            # A working loop sees within a period that the run has ended; a hanging one is not waited for.
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
        """Stop the robot, unless another thread does.

        Args:
            beside: the loop may be in the middle of a call.
        """
        with self._claim:
            if self._claimed:
                return
            self._claimed = True
        if beside and self._acting.acquire(blocking=False):
            self._acting.release()  # the run has ended, so no action begins from now on
        else:
            self._late = beside
        self._called = time.perf_counter()
        self._stopping.set()
        try:
            self._stop()
        except BaseException as error:
            self._errors.append(failed("robot.stop()", error))
        finally:
            self._returned = time.perf_counter()
            self._at_rest.set()

    def _stop_again(self) -> None:
        """Stop the robot again, because the action that hung has returned and may have reached it after the first
        stop."""
        self._again = time.perf_counter()
        self._at_rest.wait(GRACE_SECONDS)  # if the first stop hangs, then until this call or for good
        try:
            self._stop()
        except BaseException as error:
            text = f"robot.stop() failed after a late action: {error_text(error)}"
            self._errors.append(SpecpolicyError(text))
            LOGGER.error("%s: the robot may still move", text)

    def _release(self) -> None:
        try:
            self._close()
        except BaseException as error:
            self._errors.append(failed("worker.close()", error))
        finally:
            self._closed.set()

    def _leave(self) -> None:
        """Stop the robot when the program ends while another thread is in `run`, or an action of a run still hangs."""
        if os.getpid() != self._process:  # a fork of this program, in which no loop runs
            return
        with EndingSignals():  # further signals wait for the robot, too
            self.end("the end of the program")
            self._at_rest.wait(self._grace + self._stop_timeout)
            self._wait_for_loop(time.perf_counter())
