"""How the threads of a run wait for each other: a bell, a latch, and the watch that one keeps on another.

Python's own events hold a lock of their own while they are set, which a signal handler would find held for ever by the
very thread that it interrupts. A bare lock does not: any thread may let go of it, and nobody is kept waiting.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

LONGEST_SECONDS = 1.0  # of one sleep: a thread that is woken by nothing sees what has changed within this time


class Bell:
    """Wakes the one thread that waits for it. `ring` may be called anywhere, in a signal handler as well."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread that waits, or the next one that does."""
        with contextlib.suppress(RuntimeError):  # it has been rung already
            self._lock.release()

    def wait(self, seconds: float = LONGEST_SECONDS) -> None:
        """Return when it has been rung, or `seconds` are over, or `LONGEST_SECONDS`."""
        self._lock.acquire(timeout=min(max(0.0, seconds), LONGEST_SECONDS))


class Latch:
    """Something that has happened or has not. `set` may be called anywhere, in a signal handler as well."""

    def __init__(self) -> None:
        self.is_set = False
        self._bell = Bell()

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        self._bell.ring()

    def wait(self, seconds: float = math.inf) -> bool:
        """Whether it has happened; waits for it, `seconds` at most."""
        deadline = time.perf_counter() + seconds
        while not self.is_set and (left := deadline - time.perf_counter()) > 0:
            self._bell.wait(left)
        if self.is_set:
            self._bell.ring()  # on to the next who waits
        return self.is_set


class Task(NamedTuple):
    """What is being done, by when, and the seconds it was given beyond its own time."""

    deadline: float = math.inf
    name: str = ""
    patience: float = math.inf


class Watch:
    """One thread says what it does and how long that may take, another one sleeps until the time is up.

    Telling costs no system call, unless the sleeper has to be woken because its new deadline is nearer than the moment
    at which it would wake by itself.

    Args:
        now: the time source; for tests.
        bell: what the sleeper sleeps on; for tests.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, bell: Bell | None = None):
        self._now, self._bell = now, bell or Bell()
        self._wakes = math.inf
        self.task = Task()

    def begins(self, name: str, seconds: float, patience: float) -> None:
        """Something begins that may take `seconds` and `patience` beyond that."""
        self.task = task = Task(self._now() + seconds + patience, name, patience)
        if task.deadline < self._wakes:
            self._bell.ring()

    def wake(self) -> None:
        """Wake the sleeper, in a signal handler as well."""
        self._bell.ring()

    def sleep(self, until: float = math.inf) -> None:
        """Sleep until the time of the task is up, `until` has come, or something happens. May wake early."""
        self._wakes = min(self.task.deadline, until)
        if self.task.deadline < self._wakes:  # another task began in between, and may not have seen when we would wake
            return
        self._bell.wait(self._wakes - self._now())

    @property
    def lapsed(self) -> Task | None:
        """The task whose time is up."""
        task = self.task
        return task if self._now() >= task.deadline else None
