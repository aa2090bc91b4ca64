"""The requests for chunks of a run, with their times."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from specpolicy.control.records import Records


@dataclass
class ChunkTiming:
    """Times of one request for a chunk.

    Attributes:
        step: control step of its newest observation.
        due: control step at which it was due.
        seconds, network_seconds, encode_seconds, calls, rows: its cost; `seconds` is None until it arrives.
        missed: it was not there when due.
        late_steps: control periods from then until it was in use; None if it never was.
        expired: it came after the last step that it has an action for.
    """

    step: int
    due: int
    seconds: float | None = None
    network_seconds: float = 0.0
    calls: int = 0
    rows: int = 0
    missed: bool = False
    late_steps: int | None = None
    expired: bool = False
    encode_seconds: float = 0.0


class ChunkTimes(Records[ChunkTiming]):
    """A list of requests in 66 bytes each, see `Records`. Only those that are not finished are objects, whose changes
    the list follows.

    Args:
        chunks: the first ones, all of them finished.
    """

    def __init__(self, chunks: Iterable[ChunkTiming] = ()):
        costs = {"seconds": "d?", "network_seconds": "d", "calls": "q", "rows": "q"}
        fate = {"missed": "b", "late_steps": "q?", "expired": "b", "encode_seconds": "d"}
        self._live: dict[int, ChunkTiming] = {}
        super().__init__(ChunkTiming, {"step": "q", "due": "q", **costs, **fate}, chunks)
        self._live.clear()

    def append(self, row: ChunkTiming) -> None:
        """Append a request that may still change."""
        super().append(row)
        self._live[len(self) - 1] = row

    def finish(self, number: int) -> None:
        """Keep what a request has come to: its object is given up."""
        self._store(number, self._live[number])
        del self._live[number]

    def columns(self) -> dict[str, np.ndarray]:
        """See `Records.columns`."""
        live = list(self._live.items())  # first: one that is finished meanwhile is then in both, else in neither
        found = super().columns()
        for number, timing in live:
            for name, value in vars(timing).items():
                if value is not None:
                    found[name][number] = value
        return found

    def _row(self, number: int) -> ChunkTiming:
        live = self._live.get(number)
        return super()._row(number) if live is None else live
