"""Chunks drawn beside LeRobot's control loop, which then never waits for one and keeps the policy's whole history."""

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from specpolicy.control import Execution, PolicyPlanner
from specpolicy.control.clock import WallClock
from specpolicy.control.pilot import Pilot
from specpolicy.control.warming import warm_up
from specpolicy.control.worker import ThreadWorker
from specpolicy.errors import SpecpolicyError
from specpolicy.policy.sampler import PolicySampler

WARM_UP = 3  # chunks before the first episode, two of them continued if chunks are: the first of a kind is slow


class Beside:
    """One action for each frame of an episode, of chunks that a thread draws meanwhile.

    The loop is LeRobot's, which tells no control steps: their numbers follow from the time, as in our own loop, so a
    loop that is late by whole periods skips them.

    Args:
        sampler: draws the chunks.
        hz: control steps per second of the loop.
        execution: how chunks become actions.
        seed: of the random numbers.
        now: the time source; for tests.

    Raises:
        SpecpolicyError: chunks shall continue what is executed, in a way that the policy does not have.
    """

    def __init__(
        self,
        sampler: PolicySampler,
        hz: float,
        execution: Execution,
        seed: int,
        now: Callable[[], float] = time.perf_counter,
    ):
        if execution.continues:
            sampler.policy.check_way(execution.stitching)
        self._worker = ThreadWorker(PolicyPlanner(sampler.policy, sampler.options))
        self._clock = WallClock(hz, now=now)
        self._hz, self._execution, self._now, self._seed = hz, execution, now, seed
        self._episode = 0
        self._slowest: float | None = None  # seconds of the slowest chunk of the warm-up
        self.reset()

    def reset(self) -> None:
        """Begin an episode: its random numbers are other ones than those of the last."""
        self._pilot: Pilot | None = None
        self._step, self._episode = -1, self._episode + 1

    def __call__(self, frame: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the action (D,) for the present control step. The first call of an episode waits for a chunk.

        Raises:
            SpecpolicyError: inference fails, or does not answer.
        """
        if self._pilot is None:
            self._pilot = self._begin(frame)
            self._clock.reset()
            self._start = self._now()
        seconds = self._now() - self._start
        self._step = max(self._step + 1, math.floor(seconds * self._hz))
        command = self._pilot.tick(self._step, seconds, frame)
        since = self._pilot.pending_since
        if since is not None and seconds - since > self._pilot.timeout:
            raise SpecpolicyError(f"inference has not answered for {seconds - since:.2g} s")
        return command.action

    def _begin(self, frame: Mapping[str, np.ndarray]) -> Pilot:
        """Plan the first chunk; before the first episode, warm up."""
        worker = self._worker
        worker.reset(self._seed + self._episode)
        if self._slowest is None:
            self._slowest = warm_up(worker, frame, WARM_UP, self._execution, self._clock)
            worker.reset(self._seed + self._episode)
        pilot = Pilot(worker, self._clock, self._hz, self._execution, timeout=max(1.0, 10 * self._slowest))
        pilot.begin(frame, self._slowest)
        return pilot
