"""Processes that die with their parent and compute on one thread each."""

import ast
import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError

# Signals that terminals and job managers send to all processes at once: the main process decides about the others.
OF_GROUPS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
GRACE_SECONDS = 5.0  # for a worker to close its files and its OpenGL context
UNGUARDED = 86  # exit code of a process that found itself running the script that started it
GUARD = (
    "a process that this script starts imports the script again, and would run all of it again, with a robot that is "
    'connected already: write what the script does under `if __name__ == "__main__":`, indented'
)
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started in this block compute on one thread each, because the cores are already shared out."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_main_guard() -> None:
    """Refuse to start processes in a script that has no `if __name__ == "__main__":` around its work.

    A process imports the main script, because planners and jobs may be defined there. Unguarded code, such as the
    connection to a robot, would run twice. Where this cannot be seen beforehand, the process that finds itself running
    the script leaves with the exit code `UNGUARDED`.

    Raises:
        SpecpolicyError: the script runs unguarded, or came from standard input, so that no process can import it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # it is still importing the script
        sys.exit(UNGUARDED)
    main: Any = sys.modules.get("__main__")
    path, name = getattr(main, "__file__", None), getattr(getattr(main, "__spec__", None), "name", "")
    if path is None or name.split(".")[-1] == "__main__":  # these are not imported again
        return
    if not name and not Path(multiprocessing.process.ORIGINAL_DIR or "", path).exists():  # type: ignore[attr-defined]
        raise SpecpolicyError(
            f"a process imports the script that starts it, and {path} is no file: write it into one, "
            "or do without processes (worker='thread', workers=0)"
        )
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None or Path(frame.f_code.co_filename).name != Path(path).name:
        return
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    if not any(_asks_who_runs(node) and getattr(node, "lineno", 0) <= frame.f_lineno for node in ast.walk(tree)):
        raise SpecpolicyError(f"{path}, line {frame.f_lineno}: {GUARD}")


def _asks_who_runs(node: Any) -> bool:
    """Whether a condition tells the main script from its import by a process."""
    names = {"__name__", "parent_process", "current_process"}
    parts = ast.walk(node.test) if hasattr(node, "test") else ()
    return any(getattr(part, "id", getattr(part, "attr", None)) in names for part in parts)


def start_process(process: Any) -> None:
    """Start a process that ends with this program, from any thread.

    On Linux a process ends with the *thread* that started it (see `start_worker`), so one thread that lives as long as
    the program starts all of them.
    """
    started: Future[None] = Future()
    with _starter_lock:
        global _starter
        if _starter is None or not _starter.is_alive():  # a forked process has none of its parent's threads
            _starter = threading.Thread(target=_start_processes, name="starter", daemon=True)
            _starter.start()
    _to_start.put((process, started))
    try:
        started.result()
    except KeyboardInterrupt:
        started.result()  # on return the process is started
        raise


_starter: threading.Thread | None = None
_starter_lock = threading.Lock()
_to_start: "queue.SimpleQueue[tuple[Any, Future[None]]]" = queue.SimpleQueue()


def _start_processes() -> None:
    while True:
        process, started = _to_start.get()
        try:
            if hasattr(signal, "pthread_sigmask"):  # inherited: no signal ends a process before its handlers are set
                signal.pthread_sigmask(signal.SIG_BLOCK, [*OF_GROUPS, signal.SIGTERM])
                resource_tracker.ensure_running()  # it unblocks some signals when it starts
                signal.pthread_sigmask(signal.SIG_BLOCK, [*OF_GROUPS, signal.SIGTERM])
            process.start()
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(None)


def start_worker(grace: float = 0.0) -> None:
    """Prepare a worker process: it leaves Ctrl-C, a lost terminal and the like to the main process, ends cleanly when
    told to, and does not outlive the main process, even when suspended.

    Args:
        grace: seconds from SIGTERM to the end. A main process that got the same signal (from `timeout` or systemd) has
            this time to end the worker itself.
    """
    for number in OF_GROUPS:
        signal.signal(number, signal.SIG_IGN)

    def end(*_: Any) -> None:
        if not grace:
            sys.exit(1)  # unlike the default, this removes temporary files
        timer = threading.Timer(grace, os._exit, [1])
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, end)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*OF_GROUPS, signal.SIGTERM])  # see `_start_processes`
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":  # a suspended process runs none of its threads
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent.pid:  # the parent died before its death could be watched
            os._exit(1)

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def cause_of_death(process: Any, seconds: float = 1.0) -> str:
    """Return how a process has ended, in a few words.

    Args:
        process: has ended, or has just closed its connection.
        seconds: longest wait for its end.

    Raises:
        SpecpolicyError: it has found itself running the script that had started it.
    """
    process.join(seconds)
    code = process.exitcode
    if code == UNGUARDED:
        raise SpecpolicyError(GUARD) from None
    if code is None:
        return "it has closed its connection"
    if code >= 0:
        return f"exit code {code}"
    killed = f"killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"killed by signal {-code}"
    return f"{killed}; out of memory?" if -code == signal.SIGKILL else killed
