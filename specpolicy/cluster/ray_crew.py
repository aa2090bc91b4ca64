"""Jobs on a Ray cluster: handed out, and done again elsewhere when a process, a node or an environment has failed."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from specpolicy.cluster.ray_actors import Place, Planner, Worker, World
from specpolicy.cluster.ray_nodes import Node, reason_of
from specpolicy.cluster.work import Work
from specpolicy.cluster.worlds import places, teams_of
from specpolicy.errors import SpecpolicyError

PATIENCE_SECONDS = 300.0  # for a process to begin somewhere, while nothing else is done


@dataclass
class _Task:
    """A job and its failures: how many count against it, on which nodes, and the last reason."""

    job: Any
    failures: int = 0
    nodes: set[str] = field(default_factory=set)
    reason: str = ""


@dataclass
class _Group:
    """Actors that stand or fall together: a worker, or a planner with its worlds. The first one does the jobs."""

    actors: list[Any]
    slots: int
    node: str | None = None  # once it is ready
    busy: list[_Task] = field(default_factory=list)

    @property
    def free(self) -> int:
        """How many more jobs it can take. A job that has failed before has a group for itself, to know its fault."""
        alone = any(task.failures for task in self.busy)
        return 0 if self.node is None or alone else self.slots - len(self.busy)


class RayCrew:
    """Processes of a Ray cluster, see `Crew`.

    Args:
        ray: the module, connected.
        nodes: of the cluster.
        workers: processes, or processes of worlds; a CPU each.
        planners: planners that are shared, at most as many as workers.
        gpus: share of a GPU of each process with a policy; without one, a planner takes a CPU.
        retries: how often a failed job is done again.
        vet: returns the nodes with these ids, if work may be done there; called for those that join later.
    """

    def __init__(
        self,
        ray: Any,
        nodes: list[Node],
        workers: int,
        planners: int,
        gpus: float,
        retries: int,
        vet: Callable[[set[str]], list[Node]] = lambda ids: [],
    ):
        self.workers, self.planners, self._vet = workers, planners, vet
        self._ray, self._nodes, self._gpus, self._retries = ray, nodes, gpus, retries

    @property
    def about(self) -> dict[str, Any]:
        """See `Crew`."""
        nodes = [{"address": node.address, "cpus": node.cpus, **node.facts.get("about", {})} for node in self._nodes]
        return {"name": "ray", "workers": self.workers, "planners": self.planners, "nodes": nodes}

    def run(self, work: Work, jobs: Iterable[Any], most: int) -> Generator[Any, None, None]:
        """See `Crew.run`. Jobs that fail everywhere are named in the end, when all others are done."""
        if most > 0:
            groups = self._groups(work, most)
            hands = _Hands(self._ray, [make() for make in groups], groups, self._retries, self._meet)
            yield from hands.run(work, iter(jobs))

    def _meet(self, ids: list[str]) -> None:
        """Look at nodes that were not there when the cluster was looked at."""
        if new := set(ids) - {node.id for node in self._nodes}:
            self._nodes += self._vet(new)

    def _groups(self, work: Work, most: int) -> list[Callable[[], _Group]]:
        """Return functions that start the groups, and start them anew."""
        place, dumps = Place.here(), self._ray.cloudpickle.dumps  # it also takes what the main script defines
        workers = max(1, min(self.workers, most * work.size))
        gpu = {"num_gpus": self._gpus} if self._gpus else {}
        spread = {"scheduling_strategy": "SPREAD", "max_restarts": 0}

        def start(kind: type, *arguments: Any, **options: Any) -> Any:
            return self._ray.remote(kind).options(**spread, **options).remote(place, *arguments)

        if not self.planners:
            made = dumps((work.make, work.setup))
            return [lambda: _Group([start(Worker, made, num_cpus=1, **gpu)], 1)] * workers
        shared, world = dumps((work.share, work.setup)), dumps((work.world, work.world_setup))

        def grouped(own: int) -> _Group:
            teams = teams_of(work.size, own)
            counts = places(own, teams * work.size)
            worlds = [start(World, world, count, num_cpus=1, max_concurrency=count + 1) for count in counts]
            device = gpu or {"num_cpus": 1}
            lead = start(Planner, shared, worlds, counts, work.size, max_concurrency=teams + 1, **device)
            return _Group([lead, *worlds], teams)

        return [functools.partial(grouped, own) for own in places(min(self.planners, workers), workers)]


class _Hands:
    """One run: which group does what, and what has to be done again."""

    def __init__(
        self,
        ray: Any,
        groups: list[_Group],
        makers: list[Callable[[], _Group]],
        retries: int,
        meet: Callable[[list[str]], None],
    ):
        self._ray, self._groups, self._makers, self._retries, self._meet = ray, groups, makers, retries, meet
        self._awaited: dict[Any, tuple[int, _Task | None]] = {}  # reference: number of the group, job (None: ready)
        self._down: deque[int] = deque()  # groups to begin anew
        self._again: deque[_Task] = deque()
        self._failed: list[_Task] = []

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
                        self._begin()
                    else:
                        self._groups[number].busy.remove(task)
                        yield value
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
                        self._give(number, _Task(job))
                        break
                    else:
                        return True
        return False

    def _give(self, number: int, task: _Task) -> None:
        group = self._groups[number]
        group.busy.append(task)
        self._awaited[group.actors[0].do.remote(task.job)] = (number, task)

    def _await_group(self, number: int) -> None:
        self._awaited[self._groups[number].actors[0].ready.remote()] = (number, None)

    def _finished(self) -> Iterator[tuple[int, _Task | None, Any]]:
        """Wait, and return what has ended: the number of the group, the job, the reference of the result."""
        idle = not any(group.busy for group in self._groups)
        done, _ = self._ray.wait(list(self._awaited), timeout=PATIENCE_SECONDS if idle else None)
        if not done:
            raise SpecpolicyError(
                f"cluster: no node has had a free CPU for {PATIENCE_SECONDS:g} s; what is finished is kept: start the "
                "same command again when there is one"
            )
        for reference in done:
            if reference in self._awaited:  # else its group has been lost with the one before
                yield *self._awaited.pop(reference), reference

    def _lost(self, number: int, task: _Task | None, error: Exception) -> None:
        """End a group after a failure, begin a new one in its place, and have its jobs done again."""
        group = self._groups[number]
        own = isinstance(error, self._ray.exceptions.RayTaskError)  # the job itself has failed, not the process
        for one in group.busy:
            if one is task or not own:
                one.failures += 1
                one.nodes.add(group.node or "")
                one.reason = reason_of(error)
            (self._again if one.failures <= self._retries else self._failed).append(one)
        self._awaited = {ref: whose for ref, whose in self._awaited.items() if whose[0] != number}
        self._end(group)
        self._groups[number] = _Group([], 0)
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

    def _end(self, group: _Group) -> None:
        for actor in group.actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
