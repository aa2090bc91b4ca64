"""Work spread over processes that die with their parent, compute on one thread each and report every failure."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from specpolicy.errors import SpecpolicyError

GRACE_SECONDS = 5.0  # for a worker to close its files and its OpenGL context


def run_jobs(
    make: Callable[[Any], Callable[[Any], Any]], setup: Any, jobs: Iterable[Any], workers: int
) -> Generator[Any, None, None]:
    """Yield `make(setup)(job)` for every job, in the order of completion.

    Args:
        make: called once in each process; a module-level function or class. If what it returns has a `close`
            method, that is called at the end.
        setup: its argument. It, the jobs and the results are pickled.
        jobs: taken one at a time as workers become free, in their order. An iterator is asked again after each
            result, so it may depend on the results so far, and go on after it has stopped.
        workers: processes; 0 works in this one, without processes.

    Raises:
        SpecpolicyError: as raised by a worker, or because a worker died.
        RuntimeError: another exception in a worker, with its traceback.
    """
    if workers == 0:
        handle = make(setup)
        try:
            for job in jobs:
                yield handle(job)
        finally:
            _close(handle)
        return
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, Any] = {}
    orderly = False
    try:
        with one_thread_each():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                processes[ours] = context.Process(target=_work, args=(theirs, make, setup), daemon=True)
                processes[ours].start()
                theirs.close()
        waiting = iter(jobs)
        busy: set[Connection] = set()
        for connection in processes:
            _assign(connection, waiting, busy)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                busy.discard(ready)
                yield _receive(ready, workers)
                for connection in processes.keys() - busy:
                    _assign(connection, waiting, busy)
        orderly = True
    finally:
        for connection, process in processes.items():
            connection.close()  # the worker waits for a job: it sees the end of the pipe and leaves
            if not orderly:
                process.terminate()
        for process in processes.values():
            process.join(GRACE_SECONDS)
            if process.is_alive():
                process.kill()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started in this block compute on one thread each; the cores are shared out already."""
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


def start_worker() -> None:
    """Leave Ctrl-C to the main process, end cleanly when it says so, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unlike the default, this removes temporary files
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _assign(connection: Connection, jobs: Iterator[Any], busy: set[Connection]) -> None:
    """Give the worker its next job, if there is one."""
    for job in jobs:
        with contextlib.suppress(BrokenPipeError):  # it has died: receiving from it says so
            connection.send(job)
        busy.add(connection)
        return


def _receive(connection: Connection, workers: int) -> Any:
    try:
        kind, value = connection.recv()
    except (EOFError, ConnectionResetError):
        raise SpecpolicyError(
            "a worker process died (out of memory?); what is finished is kept: start the same command again, "
            f"with fewer than workers={workers}"
        ) from None
    if kind == "refused":
        raise SpecpolicyError(value)
    if kind == "failed":
        raise RuntimeError(f"in a worker process:\n{value}")
    return value


def _work(connection: Connection, make: Callable[[Any], Callable[[Any], Any]], setup: Any) -> None:
    """The life of a worker."""
    start_worker()
    handle = None
    try:
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while True:
                job = connection.recv()
                try:
                    handle = handle or make(setup)
                    answer = ("done", handle(job))
                except SpecpolicyError as error:
                    answer = ("refused", str(error))
                except Exception:
                    answer = ("failed", traceback.format_exc())
                connection.send(answer)
    finally:
        _close(handle)


def _close(handle: Any) -> None:
    close = getattr(handle, "close", None)
    if close is not None:
        close()
