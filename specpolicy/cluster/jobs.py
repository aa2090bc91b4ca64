"""Jobs shared out among processes; every failure is reported."""

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from specpolicy.cluster.limits import Limit
from specpolicy.errors import SpecpolicyError
from specpolicy.processes import (
    GRACE_SECONDS,
    cause_of_death,
    check_main_guard,
    one_thread_each,
    start_process,
    start_worker,
)


def run_jobs(
    make: Callable[[Any], Callable[[Any], Any]],
    setup: Any,
    jobs: Iterable[Any],
    workers: int,
    limit: Limit | None = None,
) -> Generator[Any, None, None]:
    """Yield `make(setup)(job)` for every job, in the order of completion.

    Args:
        make: called once in each process; a module-level function or class. If its result has a `close` method, that is
            called at the end.
        setup: its argument. It, the jobs and the results are pickled.
        jobs: taken one at a time as workers become free, in their order. An iterator is asked again after each result,
            so it may depend on the results so far, and go on after it has stopped.
        workers: processes; 0 works in this one, without processes.
        limit: how long a job may take in a process, and its name in messages.

    Raises:
        SpecpolicyError: raised by a worker, or because a worker died or a job took too long; or the script lacks its
            main guard.
        RuntimeError: another exception in a worker, with its traceback.
    """
    if workers == 0:
        handle = make(setup)
        try:
            for job in jobs:
                yield handle(job)
        finally:
            close(handle)
        return
    check_main_guard()
    with crew(_work, make, setup, workers) as found:
        processes = {connection: process for process, (connection,) in found}
        waiting, limit = iter(jobs), limit or Limit()
        busy: set[Connection] = set()
        for connection in processes:
            _assign(connection, waiting, busy, limit)
        while busy:
            answers = wait(list(busy), limit.left)
            late = [connection for connection in limit.over if connection not in answers]
            for ready in answers:
                assert isinstance(ready, Connection)
                busy.discard(ready)
                at = f" at {limit.name(limit.end(ready))}"
                yield receive(ready, processes[ready], workers, at)[1]
                for connection in processes.keys() - busy:
                    _assign(connection, waiting, busy, limit)
            if late:
                raise limit.error(late)


@contextlib.contextmanager
def crew(
    run: Callable[..., None], make: Callable[[Any], Any], setup: Any, workers: int, pipes: Sequence[int] = ()
) -> Iterator[list[tuple[Any, list[Connection]]]]:
    """Start processes that run `run(*pipes, make, setup)`; return each with our ends of its pipes.

    They end with the block. A worker that waits for a job sees the end of its pipe and leaves; after an exception it is
    terminated.

    Args:
        run: a module-level function.
        make, setup: what it makes its work of.
        workers: number of processes.
        pipes: number of pipes of each process; one each if not given.
    """
    context = multiprocessing.get_context("spawn")
    started: list[tuple[Any, list[Connection]]] = []
    orderly = False
    try:
        with one_thread_each():
            for number in range(workers):
                ends = [context.Pipe() for _ in range(pipes[number] if pipes else 1)]
                theirs = [end for _, end in ends]
                process = context.Process(target=run, args=(*theirs, make, setup), daemon=True)
                started.append((process, [end for end, _ in ends]))
                start_process(process)
                for end in theirs:
                    end.close()
        yield started
        orderly = True
    finally:
        for process, connections in started:
            for connection in connections:
                connection.close()
            if not orderly and process.pid is not None:
                process.terminate()
        for process, _ in started:
            if process.pid is not None:
                process.join(GRACE_SECONDS)
                if process.is_alive():
                    process.kill()


def _assign(connection: Connection, jobs: Iterator[Any], busy: set[Connection], limit: Limit) -> None:
    """Give the worker its next job, if there is one."""
    for job in jobs:
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows when its result is received
            connection.send(job)
        busy.add(connection)
        limit.begin(connection, job)
        return


def receive(connection: Connection, process: Any, workers: int, at: str = "") -> tuple[str, Any]:
    """Return what a worker says: a kind, such as "done", and a value. `at`: its job, for messages.

    Raises:
        SpecpolicyError: it has died, or what it was given is refused.
        RuntimeError: another exception in it, with its traceback.
    """
    try:
        kind, value = connection.recv()
    except (EOFError, OSError):
        raise SpecpolicyError(
            f"a worker process died{at} ({cause_of_death(process)}); what is finished is kept: start the same command "
            f"again, with fewer than workers={workers} if memory was short"
        ) from None
    if kind == "refused":
        raise SpecpolicyError(value)
    if kind == "failed":
        raise RuntimeError(f"in a worker process{at}:\n{value}")
    return kind, value


def failure(error: BaseException) -> tuple[str, str]:
    """Return an exception in a worker as `receive` takes it; call it while the exception is handled."""
    return ("refused", str(error)) if isinstance(error, SpecpolicyError) else ("failed", traceback.format_exc())


def _work(connection: Connection, make: Callable[[Any], Callable[[Any], Any]], setup: Any) -> None:
    """Run a worker."""
    start_worker()
    handle = None
    try:
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while True:
                job = connection.recv()
                try:
                    handle = handle or make(setup)
                    answer = ("done", handle(job))
                except Exception as error:
                    answer = failure(error)
                connection.send(answer)
    finally:
        close(handle)


def close(handle: Any) -> None:
    """Call its `close`, if it has one."""
    end = getattr(handle, "close", None)
    if end is not None:
        end()
