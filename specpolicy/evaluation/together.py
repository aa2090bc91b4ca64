"""Several episodes of a condition side by side in one process; their chunks are drawn in one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from specpolicy.committed import Committed
from specpolicy.control.chunk import Chunk, History
from specpolicy.evaluation.lockstep import in_lockstep
from specpolicy.evaluation.planners import PolicyPlanner
from specpolicy.evaluation.player import Job, Played, Player, Setup
from specpolicy.samplers.base import Sample, SampleStatistics

# An observation, the episode's random numbers, and the actions that are committed
Question = tuple[Mapping[str, np.ndarray], torch.Generator, Committed | None]
Ask = Callable[[Question], Sample]


class Players:
    """Plays blocks of episodes, `setup.batch` of them side by side.

    Every episode has its own random numbers, so it equals the episode played alone, up to rounding: sums in a network
    may depend on the number of rows. Rounding is the same in every run, because the block alone decides which episodes
    share a batch.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self._player = Player(setup)
        self._seats: list[Player] = []

    def __call__(self, block: Sequence[Job]) -> list[Played]:
        """Play the episodes of a block, all of one condition."""
        planner = self._player.planner(block[0].condition)
        if len(block) == 1 or not isinstance(planner, PolicyPlanner):  # the scripted expert calls no network
            return [self._player(job) for job in block]
        while len(self._seats) < min(self.setup.batch, len(block)):
            self._seats.append(Player(self.setup))
            self._seats[-1].prepare()
        known = Known.of(planner)

        def work(seat: int, job: Job, ask: Ask) -> Played:
            return self._seats[seat](job, planner=Member(known, ask))

        return in_lockstep(block, self.setup.batch, work, lambda questions: draw(planner, questions))

    def close(self) -> None:
        """Close the environments."""
        with contextlib.ExitStack() as stack:
            for player in (self._player, *self._seats):
                stack.callback(player.close)


def draw_alone(planner: PolicyPlanner, questions: Sequence[Question]) -> list[Sample]:
    """Draw one chunk for each question, each as it is drawn for an episode that is played alone."""
    policy: Any = planner.policy
    found = []
    for observation, generator, committed in questions:
        told = {} if committed is None else {"committed": committed}
        found.append(policy.predict(observation, sampler=planner.sampler, generator=generator, **told))
    return found


def draw(planner: PolicyPlanner, questions: Sequence[Question]) -> list[Sample]:
    """Draw one chunk for each question in one batch; `seconds` are those of the whole batch."""
    observations, generators, committed = zip(*questions, strict=True)
    stacked = {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    policy: Any = planner.policy  # local or served: either takes a batch
    told = {"committed": committed} if any(one is not None for one in committed) else {}
    out = policy.predict(stacked, sampler=planner.sampler, generator=list(generators), **told)
    return [_one(out, slice(row, row + 1)) for row in range(len(questions))]


def _one(out: Sample, row: slice) -> Sample:
    stats = out.stats
    own = SampleStatistics(
        stats.calls[row],
        stats.rows[row],
        seconds=stats.seconds,
        network_seconds=stats.network_seconds,
        encode_seconds=stats.encode_seconds,
    )
    return Sample(out.actions[row], own)


@dataclass(frozen=True)
class Known:
    """What an episode knows of a policy that someone else asks; see `Policy`."""

    n_obs_steps: int
    n_action_steps: int
    first_action: int
    observation_keys: tuple[str, ...]
    continues: bool

    @classmethod
    def of(cls, planner: PolicyPlanner) -> Known:
        """Return what is known of a planner's policy."""
        policy, keys = planner.policy, tuple(planner.policy.observation_keys)
        return cls(policy.n_obs_steps, policy.n_action_steps, policy.first_action, keys, planner.continues)


class Member(PolicyPlanner):
    """The planner of one of several episodes, whose chunks are drawn in a common batch."""

    def __init__(self, known: Known, ask: Ask):
        self._asking = _Asking(known, ask)
        super().__init__(self._asking)
        self.continues = known.continues

    def plan(self, history: History, committed: Committed | None = None) -> Chunk:
        """See `Planner.plan`; `seconds` leaves out the wait for the other episodes."""
        return replace(super().plan(history, committed), seconds=self._asking.seconds)


class _Asking:
    """A policy that asks someone else to draw its chunks."""

    def __init__(self, known: Known, ask: Ask):
        self.n_obs_steps, self.n_action_steps = known.n_obs_steps, known.n_action_steps
        self.first_action, self.observation_keys = known.first_action, known.observation_keys
        self._ask, self.seconds = ask, 0.0

    def predict(
        self,
        observation: Mapping[str, Any],
        sampler: Any,
        generator: torch.Generator,
        committed: Committed | None = None,
    ) -> Sample:
        """See `Policy.predict`."""
        out = self._ask((observation, generator, committed))
        self.seconds = out.stats.seconds
        return out
