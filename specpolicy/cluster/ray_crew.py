"""Jobs on a Ray cluster: handed out, and done again elsewhere when a process, a node or an environment has failed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from typing import Any

from specpolicy.cluster.limits import Limit
from specpolicy.cluster.ray_actors import Place, Planner, Worker, World
from specpolicy.cluster.ray_hands import Group, Hands
from specpolicy.cluster.ray_nodes import Node
from specpolicy.cluster.work import Work
from specpolicy.cluster.worlds import places, teams_of


class RayCrew:
    """Processes of a Ray cluster, see `Crew`.

    Args:
        ray: the module, connected.
        nodes: of the cluster.
        workers: processes, or processes of worlds; a CPU each.
        planners: planners that are shared, at most as many as workers.
        gpus: share of a GPU of each process with a policy; without one, a planner takes a CPU.
        retries: how often a failed job is done again.
        timeout: seconds that a job may take before that is a failure; None: no limit.
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
        timeout: float | None = None,
        vet: Callable[[set[str]], list[Node]] = lambda ids: [],
    ):
        self.workers, self.planners, self._vet = workers, planners, vet
        self._ray, self._nodes, self._gpus, self._retries, self._timeout = ray, nodes, gpus, retries, timeout

    @property
    def about(self) -> dict[str, Any]:
        """See `Crew`."""
        nodes = [{"address": node.address, "cpus": node.cpus, **node.facts.get("about", {})} for node in self._nodes]
        return {"name": "ray", "workers": self.workers, "planners": self.planners, "nodes": nodes}

    def run(self, work: Work, jobs: Iterable[Any], most: int) -> Generator[Any, None, None]:
        """See `Crew.run`. Jobs that fail everywhere are named in the end, when all others are done."""
        if most > 0:
            groups = self._groups(work, most)
            begun = [make() for make in groups]
            hands = Hands(self._ray, begun, groups, self._retries, self._meet, Limit(self._timeout))
            yield from hands.run(work, iter(jobs))

    def _meet(self, ids: list[str]) -> None:
        """Look at nodes that were not there when the cluster was looked at."""
        if new := set(ids) - {node.id for node in self._nodes}:
            self._nodes += self._vet(new)

    def _groups(self, work: Work, most: int) -> list[Callable[[], Group]]:
        """Return functions that start the groups, and start them anew."""
        place, dumps = Place.here(), self._ray.cloudpickle.dumps  # it also takes what the main script defines
        workers = max(1, min(self.workers, most * work.size))
        gpu = {"num_gpus": self._gpus} if self._gpus else {}
        spread = {"scheduling_strategy": "SPREAD", "max_restarts": 0}

        def start(kind: type, *arguments: Any, **options: Any) -> Any:
            return self._ray.remote(kind).options(**spread, **options).remote(place, *arguments)

        if not self.planners:
            made = dumps((work.make, work.setup))
            return [lambda: Group([start(Worker, made, num_cpus=1, **gpu)], 1)] * workers
        shared, world = dumps((work.share, work.setup)), dumps((work.world, work.world_setup))

        def grouped(own: int) -> Group:
            teams = teams_of(work.size, own)
            counts = places(own, teams * work.size)
            worlds = [start(World, world, count, num_cpus=1, max_concurrency=count + 1) for count in counts]
            device = gpu or {"num_cpus": 1}
            lead = start(Planner, shared, worlds, counts, work.size, max_concurrency=teams + 1, **device)
            return Group([lead, *worlds], teams)

        return [functools.partial(grouped, own) for own in places(min(self.planners, workers), workers)]
