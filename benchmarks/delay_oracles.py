"""Tasks whose observations are old in part, to take the loss by delay apart (see benchmarks/delay_causes.sh).

A policy that waits d steps plans for the step t + d with an arm and a scene of step t. Planning at once from an arm of
now and a scene that is d steps old is the same with the arm predicted by an oracle. `delay_oracles:OldLift-v0` and its
like are the shipped tasks with `arm_age` and `scene_age` in control steps. What depends on both is computed anew.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

import specpolicy_envs

Observation = dict[str, np.ndarray]
OWN_BODY = ("robot0_", "agent_pos")  # keys of the robot's own state


class OldParts(gymnasium.ObservationWrapper[Observation, np.ndarray, Observation]):
    """Shows the arm `arm_age` and the scene `scene_age` steps late; what does not exist yet is that of the reset."""

    def __init__(self, env: gymnasium.Env, arm_age: int, scene_age: int):
        super().__init__(env)
        self.arm_age, self.scene_age = arm_age, scene_age
        self._seen: list[Observation] = []

    def reset(self, **kwargs: Any) -> tuple[Observation, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        self._seen = []
        return super().reset(**kwargs)

    def observation(self, observation: Observation) -> Observation:
        """Return what is seen now."""
        self._seen.append(observation)
        arm, scene = (self._seen[max(0, len(self._seen) - 1 - age)] for age in (self.arm_age, self.scene_age))
        base: Any = self.env.unwrapped
        if hasattr(base, "seen_from"):
            return base.seen_from(scene, arm)
        return {**scene, **{key: arm[key] for key in scene if key.startswith(OWN_BODY)}}


def _make(env_id: str, arm_age: int = 0, scene_age: int = 0, **kwargs: Any) -> gymnasium.Env:
    return OldParts(gymnasium.make(env_id, disable_env_checker=True, **kwargs), arm_age, scene_age)


for env_id in specpolicy_envs.TASKS:
    name = env_id.removeprefix("specpolicy/")
    if f"Old{name}" not in gymnasium.registry:
        gymnasium.register(f"Old{name}", entry_point=_make, kwargs={"env_id": env_id})
