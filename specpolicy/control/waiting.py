"""Tools for threads of a run that wait for each other: a bell, a latch, and a watch that one keeps on another.

Python's events hold an internal lock while they are set. A signal handler that interrupts the setting thread would find
it held for ever. A bare lock has no such moment: any thread may release it, and nobody waits.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

LONGEST_SECONDS = 1.0  # of one sleep: a thread that is not woken sees a change within this time


class Bell:
    """Wakes the one waiting thread. `ring` may be called anywhere, also in a signal handler."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiting thread, or the next one that waits."""
        with contextlib.suppress(RuntimeError):  # it has been rung already
            self._lock.release()

    def wait(self, seconds: float = LONGEST_SECONDS) -> None:
        """Return when it has been rung, or after `seconds`, or after `LONGEST_SECONDS`."""
        self._lock.acquire(timeout=min(max(0.0, seconds), LONGEST_SECONDS))


class Latch:
    """An event that has happened or has not. `set` may be called anywhere, also in a signal handler."""

    def __init__(self) -> None:
        self.is_set = False
        self._bell = Bell()

    def set(self) -> None:
        """Record that it has happened."""
        self.is_set = True
        self._bell.ring()

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait at most `seconds` for it; return whether it has happened."""
        deadline = time.perf_counter() + seconds
        while not self.is_set and (left := deadline - time.perf_counter()) > 0:
            self._bell.wait(left)
        if self.is_set:
            self._bell.ring()  # wake the next waiting thread
        return self.is_set


class Task(NamedTuple):
    """A task, its deadline, and the patience: seconds beyond its own time."""

    deadline: float = math.inf
    name: str = ""
    patience: float = math.inf


class Watch:
    """One thread announces its tasks and their times; another sleeps until a time is over.

    An announcement costs no system call, unless the sleeper must be woken because its new deadline is nearer than its
    next waking.

    Args:
        now: the time source; for tests.
        bell: the sleeper's bell; for tests.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, bell: Bell | None = None):
        self._now, self._bell = now, bell or Bell()
        self._wakes = math.inf
        self.task = Task()

    def begins(self, name: str, seconds: float, patience: float) -> None:
        """Announce a task that may take `seconds`, and `patience` beyond that."""
        self.task = task = Task(self._now() + seconds + patience, name, patience)
        if task.deadline < self._wakes:
            self._bell.ring()

    def wake(self) -> None:
        """Wake the sleeper, also in a signal handler."""
        self._bell.ring()

    def sleep(self, until: float = math.inf) -> None:
        """Sleep until the task's deadline, `until`, or an event. May wake early."""
        self._wakes = min(self.task.deadline, until)
        if self.task.deadline < self._wakes:  # another task began in between, and may not have seen our waking time
            return
        self._bell.wait(self._wakes - self._now())

    @property
    def lapsed(self) -> Task | None:
        """Return the task whose time is over, if any."""
        task = self.task
        return task if self._now() >= task.deadline else None
