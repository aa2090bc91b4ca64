"""Seats: threads that work on jobs and ask questions meanwhile, wherever those who ask and those who answer are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

# Does a job at a seat: (number of the seat, job, ask) -> result. `ask` returns the answer to a question.
SeatWork = Callable[[int, Any, Callable[[Any], Any]], Any]
# A seat somewhere else. Takes a job, or the answer to its last question; returns ("asked", question) or ("done",
# result). Raises what went wrong there.
Seat = Callable[[Any], tuple[str, Any]]

END = object()  # in place of a job or an answer: leave the seat


class Ended(BaseException):
    """Ends a seat that waits for an answer; handlers of ordinary exceptions do not catch it."""


class Inbox(Protocol):
    """Takes what a seat says: (seat, "asked" | "done" | "failed", value)."""

    def put(self, said: tuple[int, str, Any], /) -> None:
        """Take it."""


class Outbox(Protocol):
    """Gives a seat its jobs and answers, and `END`."""

    def get(self) -> Any:
        """Wait for the next one."""


def sit(seat: int, work: SeatWork, inbox: Inbox, outbox: Outbox) -> None:
    """Work at a seat: do the jobs that come, one after the other, until the end or a failure."""

    def ask(question: Any) -> Any:
        inbox.put((seat, "asked", question))
        found = outbox.get()
        if found is END:
            raise Ended
        return found

    while True:
        job = outbox.get()
        if job is END:
            return
        try:
            inbox.put((seat, "done", work(seat, job, ask)))
        except Ended:
            return
        except BaseException as error:  # whoever has given the job raises it
            inbox.put((seat, "failed", error))
            return


def do_at(seat: Seat, job: Any, answer: Callable[[Any], Any]) -> Any:
    """Have a job done at a seat somewhere else and answer its questions; return its result."""
    kind, value = seat(job)
    while kind == "asked":
        kind, value = seat(answer(value))
    return value
