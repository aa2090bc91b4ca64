"""Threads that work side by side and whose questions are answered together, in the same groups every time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from specpolicy.cluster.seats import END, sit

Job = TypeVar("Job")
Result = TypeVar("Result")
Question = TypeVar("Question")
Answer = TypeVar("Answer")


def in_lockstep(
    jobs: Sequence[Job],
    seats: int,
    work: Callable[[int, Job, Callable[[Question], Answer]], Result],
    answer: Callable[[list[Question]], Sequence[Answer]],
) -> list[Result]:
    """Run `work(seat, job, ask)` for every job on `seats` threads; return the results in the order of `jobs`.

    `ask(question)` waits until every seat has asked or has nothing left to do. Then `answer` gets all questions at
    once, in the calling thread. Which questions are answered together depends on the jobs, not on the speed of the
    threads: a seat that has finished a job gets its next one before anything is answered, lower seats first.

    An exception in `work` or `answer` ends all seats and is raised here.
    """
    seats = min(seats, len(jobs))
    inbox: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
    outboxes: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(seats)]
    threads = [
        threading.Thread(target=sit, args=(seat, work, inbox, outboxes[seat]), daemon=True) for seat in range(seats)
    ]
    results: dict[int, Result] = {}
    left, asked = iter(enumerate(jobs)), dict[int, Question]()
    holds: dict[int, int] = {}  # job of each seat
    try:
        for thread in threads:
            thread.start()
        free = list(range(seats))
        while True:
            for seat in sorted(free):
                for number, job in left:
                    holds[seat] = number
                    outboxes[seat].put(job)
                    break
            free = []
            while len(asked) + len(free) < len(holds):
                seat, kind, value = inbox.get()
                if kind == "failed":
                    raise value
                if kind == "asked":
                    asked[seat] = value
                else:
                    results[holds[seat]] = value
                    free.append(seat)
            for seat in free:
                del holds[seat]
            if free and len(results) + len(holds) < len(jobs):
                continue
            if not holds:
                return [results[number] for number in range(len(jobs))]
            order = sorted(asked)
            for seat, value in zip(order, answer([asked[seat] for seat in order]), strict=True):
                outboxes[seat].put(value)
            asked.clear()
    finally:
        for outbox in outboxes:
            outbox.put(END)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
