"""The server's state of one connection: its last frames, and the random stream of its episode."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from specpolicy.committed import Committed, require_way
from specpolicy.control.chunk import History
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.protocol import COMMITTED, RESET, SEED, Request
from specpolicy.serving.scan import ProtocolError
from specpolicy.serving.service import Service


class Session:
    """The episode of one client. The first frame of an episode stands for those before it.

    A failed request leaves the episode as it was: its frames are kept only when its chunk has been planned.

    Args:
        service: plans the chunks.
        seeds: seeds for episodes whose client sends none.
    """

    def __init__(self, service: Service, seeds: Iterator[int]):
        self._service, self._seeds = service, seeds
        self._frames: list[History] = []
        self._offered: list[History] = []
        self.stream: Any = None

    def take(self, request: Request) -> History | None:
        """Return the history (To, ...) for a checked request; None if it has no frames.

        Raises:
            ProtocolError: a seed in the middle of an episode; committed actions that the policy cannot continue.
        """
        if request.reset or self.stream is None:
            self._frames = []
            self.stream = self._service.begin(next(self._seeds) if request.seed is None else request.seed)
        elif request.seed is not None:
            raise ProtocolError(f"the episode has begun: `{SEED}` is sent with `{RESET}`: true")
        self._check(request.committed)
        if not request.frames:
            return None
        count = len(next(iter(request.frames.values())))
        new = [{key: value[number] for key, value in request.frames.items()} for number in range(count)]
        frames = [*self._frames, *new][-self._service.n_obs_steps :]
        self._offered = [frames[0]] * (self._service.n_obs_steps - len(frames)) + frames
        return {key: np.stack([frame[key] for frame in self._offered]) for key in request.frames}

    def _check(self, committed: Committed | None) -> None:
        """Refuse what would fail together with the requests of others."""
        known = self._service.metadata
        if committed is None:
            return
        if not known.continues:
            raise ProtocolError(f"this policy takes no committed actions: send no `{COMMITTED}`")
        size = committed.actions.shape[1]
        if known.action_dim is not None and size != known.action_dim:
            raise ProtocolError(f"`{COMMITTED}` has actions of {size} numbers, those of this policy {known.action_dim}")
        if known.ways is not None:
            try:
                require_way(committed.way, known.ways)
            except SpecpolicyError as error:
                raise ProtocolError(f"`{COMMITTED}`: {error}") from None

    def keep(self) -> None:
        """Keep the frames taken last, because their chunk has been planned."""
        self._frames = self._offered
