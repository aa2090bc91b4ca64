"""What lives on the nodes of a Ray cluster: classes that become actors where they are used."""

import itertools
import os
import pickle
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from specpolicy.cluster.seats import Seat, sit
from specpolicy.cluster.worlds import Hosting, deal


@dataclass(frozen=True)
class Place:
    """Where the main process is, so that paths and modules mean the same on a node."""

    directory: str
    modules: tuple[str, ...]

    @classmethod
    def here(cls) -> "Place":
        """Return the place of this process."""
        return cls(os.getcwd(), tuple(sys.path))

    def enter(self) -> None:
        """Go there, as far as it exists on this node; compute on one thread."""
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
        if os.path.isdir(self.directory):
            os.chdir(self.directory)
        sys.path += [path for path in self.modules if path not in sys.path]


def looked(place: Place, look: bytes) -> Any:
    """Return what a pickled function without arguments returns on this node."""
    place.enter()
    return pickle.loads(look)()


class Worker:
    """Does jobs, one at a time. `made`: a pickled pair of a function and its argument, see `Work.make`."""

    def __init__(self, place: Place, made: bytes):
        place.enter()
        self._made = made
        self._handle: Callable[[Any], Any] | None = None

    def ready(self) -> list[str]:
        """Return the ids of the nodes that take part, once the processes there run."""
        return [_node()]

    def do(self, job: Any) -> Any:
        """Do a job."""
        if self._handle is None:
            self._handle = _made(self._made)
        return self._handle(job)


class World:
    """Some seats. `made`: see `Work.world`, as in `Worker`."""

    def __init__(self, place: Place, made: bytes, seats: int):
        place.enter()
        hosting = Hosting(_made, made)
        self._said: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(seats)]
        self._told: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(seats)]
        for seat in range(seats):
            pair = self._said[seat], self._told[seat]
            threading.Thread(target=sit, args=(seat, hosting, *pair), daemon=True).start()

    def ready(self) -> list[str]:
        """See `Worker.ready`."""
        return [_node()]

    def tell(self, seat: int, message: Any) -> tuple[str, Any]:
        """Give a seat a job or an answer; return what it says, see `Seat`."""
        self._told[seat].put(message)
        _, kind, value = self._said[seat].get()
        if kind == "failed":
            raise value
        return kind, value


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _made(made: bytes) -> Any:
    make, setup = pickle.loads(made)
    return make(setup)


class Planner:
    """Does jobs with worlds on other nodes, several at a time. `made`: see `Work.share`, as in `Worker`.

    Args:
        place, made: see `Worker`.
        worlds: actors of `World`.
        counts: number of seats of each.
        size: seats of a team.
    """

    def __init__(self, place: Place, made: bytes, worlds: Sequence[Any], counts: Sequence[int], size: int):
        place.enter()
        self._made, self._worlds, self._lock = made, worlds, threading.Lock()
        self._teams = deal(
            [[_far(world, seat) for seat in range(count)] for world, count in zip(worlds, counts, strict=True)], size
        )
        self._handle: Callable[[Any], Any] | None = None

    def ready(self) -> list[str]:
        """See `Worker.ready`."""
        import ray

        others = ray.get([world.ready.remote() for world in self._worlds])
        return [_node(), *itertools.chain.from_iterable(others)]

    def do(self, job: Any) -> Any:
        """Do a job; called by several threads."""
        with self._lock:
            if self._handle is None:
                share, setup = pickle.loads(self._made)
                self._handle = share(setup, self._teams)
        return self._handle(job)


def _far(world: Any, number: int) -> Seat:
    """Return a seat of another actor."""
    import ray

    return lambda message: ray.get(world.tell.remote(number, message))
