"""A planner that many processes share: they hold the worlds of its teams, and ask it for their chunks."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from specpolicy.cluster.jobs import close, crew, failure, receive
from specpolicy.cluster.limits import Limit
from specpolicy.cluster.seats import END, Seat, SeatWork, sit
from specpolicy.cluster.work import Work
from specpolicy.processes import check_main_guard, start_worker

AT_ONCE = 2  # teams, at least: while chunks are drawn for one, the worlds of the other move on


def teams_of(size: int, workers: int) -> int:
    """Return how many teams of `size` seats keep so many processes and the planner at work."""
    return max(AT_ONCE, -(-workers // size))


def deal(seats: Sequence[Sequence[Seat]], size: int) -> list[list[Seat]]:
    """Deal the seats of all processes to teams, so that each team has its seats in as many processes as can be.

    Args:
        seats: by process.
        size: of a team.
    """
    rounds = max(map(len, seats), default=0)
    found = [own[number] for number in range(rounds) for own in seats if number < len(own)]
    return [found[first : first + size] for first in range(0, len(found) - size + 1, size)]


def places(workers: int, total: int) -> list[int]:
    """Return the number of seats of each process, `total` in all."""
    return [total // workers + (number < total % workers) for number in range(workers)]


def run_shared(work: Work, jobs: Iterable[Any], workers: int, limit: Limit | None = None) -> Generator[Any, None, None]:
    """Yield the result of every job, in the order of completion, like `run_jobs`; the planner is in this process.

    Args:
        work: how jobs are done, with a planner that is shared.
        jobs: see `run_jobs`.
        workers: processes with worlds, at least one.
        limit: how long a job may take.
    """
    assert work.share is not None and work.world is not None
    check_main_guard()
    count = teams_of(work.size, workers)
    pipes = places(workers, count * work.size)
    with crew(_host, work.world, work.world_setup, workers, pipes) as processes:
        seats = [[_piped(pipe, process, workers) for pipe in ours] for process, ours in processes]
        handle = work.share(work.setup, deal(seats, work.size))
        try:
            yield from in_threads(handle, jobs, count, limit)
        finally:
            close(handle)


def in_threads(
    handle: Callable[[Any], Any], jobs: Iterable[Any], threads: int, limit: Limit | None = None
) -> Generator[Any, None, None]:
    """Yield `handle(job)` for every job, in the order of completion; `jobs` and `limit` as in `run_jobs`."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, bool, Any]] = queue.SimpleQueue()
    limit = limit or Limit()

    def work() -> None:
        while (numbered := waiting.get()) is not END:
            number, job = numbered
            try:
                finished.put((number, True, handle(job)))
            except BaseException as error:
                finished.put((number, False, error))

    left, busy = enumerate(jobs), 0
    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            while busy < threads:
                before = busy
                for number, job in left:
                    limit.begin(number, job)
                    waiting.put((number, job))
                    busy += 1
                    break
                if busy == before:
                    break
            if not busy:
                return
            try:
                number, right, value = finished.get(timeout=limit.left)
            except queue.Empty:
                if late := limit.over:
                    raise limit.error(late) from None
                continue
            limit.end(number)
            busy -= 1
            if not right:
                raise value
            yield value
    finally:
        for _ in range(threads):
            waiting.put(END)


def _piped(pipe: Connection, process: Any, workers: int) -> Seat:
    """Return a seat at the other end of a pipe."""

    def seat(message: Any) -> tuple[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # a dead process shows when it is listened to
            pipe.send(message)
        return receive(pipe, process, workers)

    return seat


class Wire:
    """A pipe as the inbox and the outbox of a seat."""

    def __init__(self, pipe: Connection):
        self._pipe = pipe

    def put(self, said: tuple[int, str, Any]) -> None:
        """Tell what the seat says."""
        _, kind, value = said
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(failure(value) if kind == "failed" else (kind, value))

    def get(self) -> Any:
        """Wait for a job or an answer; `END` when the other end is closed."""
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return END


class Hosting:
    """The worlds of one process, made when the first job comes; works at all its seats."""

    def __init__(self, make: Callable[[Any], SeatWork], setup: Any):
        self._make, self._setup = make, setup
        self._lock = threading.Lock()
        self._work: SeatWork | None = None

    def __call__(self, seat: int, job: Any, ask: Callable[[Any], Any]) -> Any:
        """Do a job at a seat."""
        with self._lock:
            self._work = self._work or self._make(self._setup)
        return self._work(seat, job, ask)

    def close(self) -> None:
        """Close the worlds."""
        close(self._work)


def _host(*arguments: Any) -> None:
    """Run a process of worlds, with a pipe for each seat."""
    *pipes, make, setup = arguments
    start_worker()
    hosting = Hosting(make, setup)
    wires = map(Wire, pipes)
    threads = [threading.Thread(target=sit, args=(seat, hosting, wire, wire)) for seat, wire in enumerate(wires)]
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join()
    hosting.close()
