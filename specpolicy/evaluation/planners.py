"""Planners to evaluate: a task's scripted expert, and checks that a policy fits an environment."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.control.chunk import Chunk, History
from specpolicy.control.planner import PolicyPlanner
from specpolicy.errors import SpecpolicyError
from specpolicy.images import is_image
from specpolicy.policy import Policy
from specpolicy.rates import check_rate
from specpolicy.tasks import has_absolute_actions, known_hz, with_cameras

if TYPE_CHECKING:
    import gymnasium

__all__ = ["ExpertPlanner", "PolicyPlanner", "check_policy_fits", "check_rate_fits", "check_shapes_fit"]


class ExpertPlanner:
    """The scripted expert of a shipped task, one action at a time: the upper bound in a comparison."""

    n_obs_steps = 1
    n_action_steps = 1
    pictures = ()  # it reads the state of the scene directly

    def __init__(self, task: Mapping[str, Any]):
        from specpolicy_envs import make_expert

        try:
            self._expert = make_expert(str(task["id"]), 0, has_absolute_actions(task))
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


def check_policy_fits(policy: Policy, env: gymnasium.Env, task_id: str, any_rate: bool = False) -> None:
    """Raise a clear error if the policy's observations, actions or rate do not fit the environment.

    Args:
        policy: the policy to run.
        env: the environment to run it in.
        task_id: name of the task in messages.
        any_rate: accept different rates.
    """
    shapes = policy.encoder.shapes
    own = {key: (shape,) if isinstance(shape, int) else tuple(shape) for key, shape in shapes.items()}
    check_shapes_fit(own, policy.action_dim, env, task_id)
    check_rate_fits(policy.control_hz, env, task_id, any_rate)


def check_rate_fits(policy_hz: float | None, env: gymnasium.Env, task_id: str, any_rate: bool = False) -> None:
    """Raise a clear error if the policy's rate is not the environment's.

    A rate that policy or environment do not state is not compared.
    """
    check_rate(policy_hz, known_hz(env), task_id, "give the task it was trained on", any_rate)


def check_shapes_fit(
    shapes: Mapping[str, tuple[int, ...]], action_dim: int | None, env: gymnasium.Env, task_id: str
) -> None:
    """Raise a clear error if the shapes do not fit; an `action_dim` of None is not checked."""
    spaces = env.observation_space.spaces  # type: ignore[attr-defined]
    images = [key for key, wanted in shapes.items() if is_image(wanted)]
    for key, wanted in shapes.items():
        if key not in spaces:
            hint = with_cameras([one for one in images if one not in spaces], env) if key in images else None
            hint = hint or "give the task it was trained on"
            if not task_id.startswith("specpolicy/"):
                hint += f", or a name to one of these: '+task.rename={{{key}:...}}'"
            raise SpecpolicyError(
                f"the policy observes '{key}', which {task_id} does not have (it has {', '.join(spaces)}): {hint}"
            )
        found = spaces[key].shape
        if found not in (wanted, (*wanted[1:], wanted[0])):  # an image may have its channels last
            ours = is_image(wanted) and key.removesuffix("_image") in getattr(env.unwrapped, "camera_names", ())
            hint = f"set task.camera_size=[{wanted[1]},{wanted[2]}]" if ours else "give the task it was trained on"
            raise SpecpolicyError(
                f"the policy expects '{key}' of size {_size(wanted)}, {task_id} gives {_size(found)}: {hint}"
            )
        if is_image(wanted):
            _check_scale(key, spaces[key], task_id)
    if action_dim is not None and env.action_space.shape != (action_dim,):
        poses = getattr(env.unwrapped, "absolute_actions", None)
        hint = "give the task it was trained on"
        if poses is not None:  # it takes changes of pose or poses
            hint += f"; +task.kwargs.absolute_actions={str(not poses).lower()} gives it other actions"
        taken = _size(env.action_space.shape or ())
        raise SpecpolicyError(f"an action of the policy has {action_dim} numbers, {task_id} takes {taken}: {hint}")


def _check_scale(key: str, space: gymnasium.spaces.Box, task_id: str) -> None:
    """Raise if a space of floats says that images leave [0, 1]: what is white in them would be a guess."""
    if space.dtype == np.uint8:
        return
    least, most = float(space.low.min()), float(space.high.max())
    if (math.isfinite(least) and least < 0) or (math.isfinite(most) and most > 1):
        raise SpecpolicyError(
            f"the images '{key}' of {task_id} hold numbers from {least:g} to {most:g}: "
            "a policy sees bytes (uint8), or floats in [0, 1]"
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
