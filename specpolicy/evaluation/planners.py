"""Planners to evaluate: a diffusion policy with a sampler, and a task's scripted expert."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from specpolicy.control.chunk import Chunk, History
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import Sampler

if TYPE_CHECKING:
    import gymnasium


class PolicyPlanner:
    """A policy and a sampler. One random stream per episode serves all of its chunks, batch size 1."""

    def __init__(self, policy: DiffusionPolicy, sampler: Sampler):
        self.policy, self.sampler = policy, sampler
        self.n_obs_steps, self.n_action_steps = policy.n_obs_steps, policy.n_action_steps
        # A CPU generator gives the same noises on every device.
        self._generator = torch.Generator()

    def reset(self, seed: int) -> None:
        """See `Planner.reset`."""
        self._generator.manual_seed(seed)

    def plan(self, history: History) -> Chunk:
        """See `Planner.plan`."""
        start = time.perf_counter()
        observation = {key: history[key] for key in self.policy.observation_keys}
        out = self.policy.predict(observation, sampler=self.sampler, generator=self._generator)
        actions = out.actions[0, self.n_obs_steps - 1 :].cpu().numpy()  # the copy waits for a GPU to finish
        return Chunk(
            actions=actions,
            seconds=time.perf_counter() - start,
            network_seconds=float(out.stats.network_seconds),
            calls=int(out.stats.calls[0]),
            rows=int(out.stats.rows[0]),
        )


class ExpertPlanner:
    """The scripted expert of one of the shipped tasks, one action at a time: the ceiling of a comparison."""

    n_obs_steps = 1
    n_action_steps = 1

    def __init__(self, task_id: str):
        from specpolicy_envs import make_expert

        try:
            self._expert = make_expert(task_id, 0)
        except ValueError as error:
            raise SpecpolicyError(str(error)) from error

    def reset(self, seed: int) -> None:
        """See `Planner.reset`."""
        self._expert.reset(seed)

    def plan(self, history: History) -> Chunk:
        """See `Planner.plan`."""
        start = time.perf_counter()
        action = self._expert.act({key: frames[-1] for key, frames in history.items()})
        return Chunk(np.asarray(action, dtype=np.float64)[None], seconds=time.perf_counter() - start)


def check_policy_fits(policy: DiffusionPolicy, env: gymnasium.Env, task_id: str) -> None:
    """Raise a clear error if the policy's observations or actions are not those of the environment."""
    spaces = env.observation_space.spaces  # type: ignore[attr-defined]
    for key in policy.observation_keys:
        if key not in spaces:
            raise SpecpolicyError(
                f"the policy observes '{key}', which {task_id} does not have (it has {', '.join(spaces)}): "
                "give the task it was trained on"
            )
        found, wanted = int(np.prod(spaces[key].shape)), policy.encoder.shapes[key]
        if spaces[key].shape != (wanted,):
            raise SpecpolicyError(
                f"the policy expects '{key}' of size {wanted}, {task_id} gives {found}: give the task it was trained on"
            )
    if env.action_space.shape != (policy.action_dim,):
        raise SpecpolicyError(
            f"the policy plans {policy.action_dim} actions, {task_id} takes {env.action_space.shape}: "
            "give the task it was trained on"
        )
