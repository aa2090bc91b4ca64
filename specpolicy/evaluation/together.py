"""Several episodes of a condition side by side in one process; their chunks are drawn in one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from specpolicy.committed import Committed
from specpolicy.control.chunk import Chunk, History
from specpolicy.control.planner import Policy
from specpolicy.evaluation.episode import run_episode
from specpolicy.evaluation.lockstep import in_lockstep
from specpolicy.evaluation.planners import PolicyPlanner
from specpolicy.evaluation.player import Job, Played, Player, Setup
from specpolicy.samplers.base import Sample, SampleStatistics
from specpolicy.tasks import control_hz, make_task_env

if TYPE_CHECKING:
    import gymnasium

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
        self._envs: list[gymnasium.Env] = []

    def __call__(self, block: Sequence[Job]) -> list[Played]:
        """Play the episodes of a block, all of one condition."""
        planner = self._player.planner(block[0].condition.sampler)
        if len(block) == 1 or not isinstance(planner, PolicyPlanner):  # the scripted expert calls no network
            return [self._player(job) for job in block]
        while len(self._envs) < min(self.setup.batch, len(block)):
            self._envs.append(make_task_env(self.setup.task))

        def work(seat: int, job: Job, ask: Ask) -> Played:
            env, member = self._envs[seat], Member(planner, ask)
            clock = job.condition.make_clock(control_hz(env))
            episode = run_episode(
                env, member, clock, job.seed, self.setup.max_seconds, execution=job.condition.execution
            )
            return Played(job.condition, episode, job.condition.execute_steps or planner.n_action_steps)

        return in_lockstep(block, self.setup.batch, work, lambda questions: draw(planner, questions))

    def close(self) -> None:
        """Close the environments."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._player.close)
            for env in self._envs:
                stack.callback(env.close)


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


class Member(PolicyPlanner):
    """The planner of one of several episodes; it uses another planner's policy and sampler, in a common batch."""

    def __init__(self, planner: PolicyPlanner, ask: Ask):
        self._asking = _Asking(planner.policy, ask)
        super().__init__(self._asking, planner.sampler)
        self.continues = planner.continues

    def plan(self, history: History, committed: Committed | None = None) -> Chunk:
        """See `Planner.plan`; `seconds` leaves out the wait for the other episodes."""
        return replace(super().plan(history, committed), seconds=self._asking.seconds)


class _Asking:
    """A policy that asks someone else to draw its chunks."""

    def __init__(self, policy: Policy, ask: Ask):
        self.n_obs_steps, self.n_action_steps = policy.n_obs_steps, policy.n_action_steps
        self.first_action, self.observation_keys = policy.first_action, policy.observation_keys
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
