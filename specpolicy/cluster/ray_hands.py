"""Who does what on a Ray cluster, and what has to be done again."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from specpolicy.cluster.limits import Limit
from specpolicy.cluster.ray_nodes import reason_of
from specpolicy.cluster.work import Work
from specpolicy.errors import SpecpolicyError

PATIENCE_SECONDS = 300.0  # for a process to begin somewhere, while nothing else is done
MOST_FAILED_STARTS = 3  # of each process, in a row, while none works


class Late(Exception):
    """A job has not ended in its time."""


@dataclass
class Task:
    """A job and its failures: how many count against it, on which nodes, and the last reason."""

    job: Any
    failures: int = 0
    nodes: set[str] = field(default_factory=set)
    reason: str = ""


@dataclass
class Group:
    """Actors that stand or fall together: a worker, or a planner with its worlds. The first one does the jobs."""

    actors: list[Any]
    slots: int
    node: str | None = None  # once it is ready
    busy: list[Task] = field(default_factory=list)

    @property
    def free(self) -> int:
        """How many more jobs it can take. A job that has failed before has a group for itself, to know its fault."""
        alone = any(task.failures for task in self.busy)
        return 0 if self.node is None or alone else self.slots - len(self.busy)


class Hands:
    """One run: which group does what, and what has to be done again."""

    def __init__(
        self,
        ray: Any,
        groups: list[Group],
        makers: list[Callable[[], Group]],
        retries: int,
        meet: Callable[[list[str]], None],
        limit: Limit,
    ):
        self._ray, self._groups, self._makers, self._retries, self._meet = ray, groups, makers, retries, meet
        self._limit = limit  # of jobs, by the reference of their result
        self._awaited: dict[Any, tuple[int, Task | None]] = {}  # reference: number of the group, job (None: ready)
        self._down: deque[int] = deque()  # groups to begin anew
        self._again: deque[Task] = deque()
        self._failed: list[Task] = []
        self._failed_starts = 0  # in a row, while no group was ready

    def run(self, work: Work, jobs: Iterator[Any]) -> Generator[Any, None, None]:
        """Yield results until nothing is left."""
        try:
            for number in range(len(self._groups)):
                self._await_group(number)
            while True:
                exhausted = self._hand_out(jobs)
                if exhausted and not self._again and not any(group.busy for group in self._groups):
                    break
                for number, task, reference in self._finished():
                    try:
                        value = self._ray.get(reference)
                    except Exception as error:
                        self._lost(number, task, error)
                        continue
                    if task is None:
                        self._meet(value)
                        self._groups[number].node = value[0]
                        self._failed_starts = 0
                        self._begin()
                    else:
                        self._groups[number].busy.remove(task)
                        yield value
                for reference in self._late():
                    if reference in self._awaited:  # else its group has been lost with the one before
                        number, task = self._awaited[reference]
                        self._lost(number, task, Late(self._limit.reason))
        finally:
            for group in self._groups:
                self._end(group)
        if self._failed:
            names = "; ".join(f"{work.name(task.job)} ({task.reason})" for task in self._failed)
            raise SpecpolicyError(
                f"{len(self._failed)} of the jobs failed wherever they were tried; all others are done, and the same "
                f"command tries these again: {names}"
            )

    def _hand_out(self, jobs: Iterator[Any]) -> bool:
        """Give all free groups their jobs; return whether there was no job for one that is free."""
        for task in list(self._again):
            idle = [number for number, group in enumerate(self._groups) if group.free and not group.busy]
            if not idle:
                break
            elsewhere = [number for number in idle if self._groups[number].node not in task.nodes]
            self._again.remove(task)
            self._give((elsewhere or idle)[0], task)
        ready = [number for number, group in enumerate(self._groups) if group.node is not None]
        if self._again:  # one of them is kept free, until nobody else is at work there
            ready = ready[1:]
        for _ in range(max((group.slots for group in self._groups), default=0)):
            for number in ready:
                if self._groups[number].free:
                    for job in jobs:
                        self._give(number, Task(job))
                        break
                    else:
                        return True
        return False

    def _give(self, number: int, task: Task) -> None:
        group = self._groups[number]
        group.busy.append(task)
        reference = group.actors[0].do.remote(task.job)
        self._awaited[reference] = (number, task)
        self._limit.begin(reference, task)

    def _await_group(self, number: int) -> None:
        self._awaited[self._groups[number].actors[0].ready.remote()] = (number, None)

    def _finished(self) -> Iterator[tuple[int, Task | None, Any]]:
        """Wait, and return what has ended: the number of the group, the job, the reference of the result."""
        idle = not any(group.busy for group in self._groups)
        patience = PATIENCE_SECONDS if idle else self._limit.left
        done, _ = self._ray.wait(list(self._awaited), timeout=patience)
        if not done and idle:
            raise SpecpolicyError(
                f"cluster: no node has had a free CPU for {PATIENCE_SECONDS:g} s; what is finished is kept: start the "
                "same command again when there is one"
            )
        for reference in done:
            if reference in self._awaited:  # else its group has been lost with the one before
                self._limit.end(reference)
                yield *self._awaited.pop(reference), reference

    def _late(self) -> list[Any]:
        """Return the references of the jobs that have not ended in their time."""
        over = self._limit.over
        return self._ray.wait(over, num_returns=len(over), timeout=0)[1] if over else []

    def _lost(self, number: int, task: Task | None, error: Exception) -> None:
        """End a group after a failure, begin a new one in its place, and have its jobs done again.

        Raises:
            SpecpolicyError: one process after the other fails before it does anything, and no other one works.
        """
        # A node where nothing can begin does not end a run that goes on elsewhere.
        self._failed_starts += task is None and all(group.node is None for group in self._groups)
        if self._failed_starts > MOST_FAILED_STARTS * len(self._groups):
            raise SpecpolicyError(
                f"cluster: processes die as they begin, {self._failed_starts} in a row ({reason_of(error)}); what is "
                "finished is kept: the same command goes on"
            )
        group = self._groups[number]
        own = isinstance(error, (self._ray.exceptions.RayTaskError, Late))  # the job itself has failed
        for one in group.busy:
            if one is task or not own:
                one.failures += 1
                one.nodes.add(group.node or "")
                one.reason = reason_of(error)
            (self._again if one.failures <= self._retries else self._failed).append(one)
        for reference in [reference for reference, whose in self._awaited.items() if whose[0] == number]:
            self._limit.end(reference)
            del self._awaited[reference]
        self._end(group)
        self._groups[number] = Group([], 0)
        self._down.append(number)
        self._begin()

    def _begin(self) -> None:
        """Begin lost groups anew: those of many actors one after the other, or they would hold each other's CPUs."""
        begun = any(task is None and len(self._groups[number].actors) > 1 for number, task in self._awaited.values())
        while self._down and not begun:
            number = self._down.popleft()
            self._groups[number] = self._makers[number]()
            self._await_group(number)
            begun = len(self._groups[number].actors) > 1

    def _end(self, group: Group) -> None:
        for actor in group.actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
