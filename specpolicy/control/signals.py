"""Signals that ask the program to end: kept until the robot has been stopped, then given their usual effect."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

LOGGER = logging.getLogger("specpolicy.control")

# Requests to end: Ctrl-C, `kill` and shutdowns, a lost terminal, Ctrl-\, and Ctrl-Break of Windows.
ASKING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
# Signals that end a program, or suspend it while the robot moves on, unless the program handles them.
ENDING_BY_DEFAULT = (
    *("SIGALRM", "SIGIO", "SIGPIPE", "SIGPROF", "SIGPWR", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGXCPU"),
)
# These suspend a program in the background that reads from its terminal or, on some terminals, writes to it. They are
# ignored, so reading fails and writing succeeds. If they were noted, the access would be tried again without end.
OF_TERMINALS = ("SIGTTIN", "SIGTTOU")


class EndingSignals:
    """A block in which no signal ends the program: signals are noted, and have their effect after the block.

    The effect is the usual one. The previous handler is called, such as Python's for Ctrl-C, which raises
    KeyboardInterrupt. Without a handler, SystemExit(128 + number) is raised, the exit code that a shell gives to a
    program that a signal ended. An exception of the block becomes its cause, and is logged.

    Ignored signals stay ignored (`nohup`). Handlers of C code stay in place, because they cannot be put back. Outside
    the main thread, where Python cannot handle signals, this does nothing (`installed` is False).

    Args:
        notice: called with the name of each signal when it comes, in the main thread, between any two instructions.
    """

    def __init__(self, notice: Callable[[str], object] = lambda name: None):
        self._notice = notice
        self._before: dict[int, Any] = {}
        self._received: list[int] = []
        self._process = 0
        self.installed = False

    def __enter__(self) -> EndingSignals:
        self._process = os.getpid()
        try:
            for number in _replaceable():
                self._before[number] = signal.getsignal(number)
                ignored = signal.Signals(number).name in OF_TERMINALS
                signal.signal(number, signal.SIG_IGN if ignored else self._receive)
            self.installed = True
        except ValueError:  # not in the main thread
            self._before.clear()
        except BaseException:  # raised by a handler whose signal came meanwhile
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raised = self._restore()
        try:
            for number in dict.fromkeys(self._received):  # a handler that lets the program go on hides no other
                self._take_effect(number)
            if raised is not None:
                raise raised
        except BaseException as effect:
            if error is None:
                raise
            LOGGER.error("%s", error)  # SystemExit would not show its cause
            raise effect from error

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork of this program inherits the handler, and has no robot to stop
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
            return
        self._received.append(number)
        self._notice(signal.Signals(number).name)

    def _restore(self) -> BaseException | None:
        """Put every handler back; return an exception that a restored handler already raises meanwhile."""
        raised: BaseException | None = None
        for number, handler in self._before.items():
            while True:
                try:
                    signal.signal(number, handler)
                    break
                except BaseException as error:
                    raised = error
        return raised

    def _take_effect(self, number: int) -> None:
        handler = self._before[number]
        if not callable(handler):
            raise SystemExit(128 + number)
        handler(number, inspect.currentframe())


@contextlib.contextmanager
def ending_raises() -> Iterator[None]:
    """A block in which `ASKING` signals that would end the program at once raise SystemExit(128 + number) instead, so
    that whatever is open is closed, such as a robot that is being connected.

    Signals that the program handles or ignores stay as they are. Outside the main thread this does nothing.
    """
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            elsewhere = _caught_by_c()
            for number in (getattr(signal, name) for name in ASKING if hasattr(signal, name)):
                if number not in elsewhere and signal.getsignal(number) is signal.SIG_DFL:
                    before[number] = signal.signal(number, _leave)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _replaceable() -> Iterator[int]:
    """Yield the signals to keep: those that would end the program and whose handlers can be put back."""
    elsewhere = _caught_by_c()
    for name in (*ASKING, *ENDING_BY_DEFAULT, *OF_TERMINALS):
        number = getattr(signal, name, None)
        if number is None:  # not on this system
            continue
        handler = signal.getsignal(number)
        by_default = handler is signal.SIG_DFL and number not in elsewhere
        if by_default or (name in ASKING and callable(handler)):
            yield number


def _caught_by_c() -> set[int]:
    """Return the signals with a handler in C (`faulthandler.register`, a profiler), as far as the system tells."""
    try:
        found = re.search(r"^SigCgt:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return set()
    mask = int(found[1], 16) if found else 0
    return {bit + 1 for bit in range(mask.bit_length()) if mask >> bit & 1}
