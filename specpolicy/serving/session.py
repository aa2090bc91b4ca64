"""What a server keeps for one connection: the last frames it sent, and the random stream of its episode."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from specpolicy.control.chunk import History
from specpolicy.serving.protocol import Request
from specpolicy.serving.service import Service


class Session:
    """The episode of one client. The first frame of an episode stands for those before it.

    Args:
        service: what is served.
        seeds: where the seeds of episodes come from whose client gives none.
    """

    def __init__(self, service: Service, seeds: Iterator[int]):
        self._service, self._seeds = service, seeds
        self._frames: deque[History] = deque(maxlen=service.n_obs_steps)
        self.stream: Any = None

    def take(self, request: Request) -> History | None:
        """Take in a request that has been checked; the history (To, ...) to plan from, None if none was sent."""
        if request.reset or self.stream is None:
            self._frames.clear()
            self.stream = self._service.begin(next(self._seeds) if request.seed is None else request.seed)
        if not request.frames:
            return None
        count = len(next(iter(request.frames.values())))
        for number in range(count):
            frame = {key: value[number] for key, value in request.frames.items()}
            if self._frames and any(self._frames[-1][key].shape != frame[key].shape for key in frame):
                self._frames.clear()  # an image that had its channels last until now
            self._frames.append(frame)
        while len(self._frames) < self._service.n_obs_steps:
            self._frames.appendleft(self._frames[0])
        return {key: np.stack([frame[key] for frame in self._frames]) for key in request.frames}
