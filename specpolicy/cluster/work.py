"""How jobs are done, and who does them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from specpolicy.cluster.seats import Seat, SeatWork


@dataclass(frozen=True)
class Work:
    """How jobs are done, wherever that is. Functions are module-level; the setup, jobs and results can be pickled.

    Attributes:
        make: `make(setup)` is called once in each process; its result does a job.
        setup: the argument of `make` and `share`.
        share: `share(setup, teams)` is called once in the process of a shared planner; its result does a job with the
            seats of a free team, and is called by several threads. None: this work has no planner to share.
        world: `world(world_setup)` is called once in each process of worlds; its result works at the seats there.
        world_setup: what the worlds need of the setup.
        size: seats of a team.
        name: names a job in messages.
    """

    make: Callable[[Any], Callable[[Any], Any]]
    setup: Any
    share: Callable[[Any, list[list[Seat]]], Callable[[Any], Any]] | None = None
    world: Callable[[Any], SeatWork] | None = None
    world_setup: Any = None
    size: int = 1
    name: Callable[[Any], str] = str


class Crew(Protocol):
    """Does jobs. The result of a job does not depend on who does it, nor on what is done meanwhile.

    Attributes:
        workers: processes; 0: none but this one.
        planners: planners that are shared; 0: each process has its own.
        about: what results say of it, plain values.
    """

    @property
    def workers(self) -> int: ...

    @property
    def planners(self) -> int: ...

    @property
    def about(self) -> dict[str, Any]: ...

    def run(self, work: Work, jobs: Iterable[Any], most: int) -> Generator[Any, None, None]:
        """Yield the result of every job once, in the order of completion.

        Args:
            work: how they are done.
            jobs: taken one at a time as processes become free, in their order. An iterator is asked again after each
                result, so it may depend on the results so far, and go on after it has stopped.
            most: no more than so many jobs.

        Raises:
            SpecpolicyError: a job is refused, or cannot be done.
        """
        ...
