"""A task configuration as a Gymnasium environment: Dict observations, `info["is_success"]` always present.

A task is a mapping with the keys `name`, `id`, `kwargs` (for `gymnasium.make`) and `observation_keys`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.rates import parse_hz

if TYPE_CHECKING:
    import gymnasium


def make_task_env(task: Mapping[str, Any], **kwargs: Any) -> gymnasium.Env:
    """Return the task's environment.

    Its observation is a dict of arrays, images of bytes and float32 for the rest (a Box observation becomes `{"state":
    ...}`), its action space a Box, and every `info`, that of `reset` included, has a bool `is_success`.

    Args:
        task: `id`, and optionally `kwargs` and `observation_keys`.
        **kwargs: more arguments of `gymnasium.make`, such as `render_mode`; they override the task's own.

    Raises:
        SpecpolicyError: an unknown id, arguments the environment refuses, spaces a policy cannot use, missing
            observation keys.
    """
    import gymnasium
    from gymnasium import spaces

    task_id = str(task["id"])
    _import_for(task_id)
    arguments = {**dict(task.get("kwargs") or {}), **kwargs}
    try:
        env = gymnasium.make(task_id, disable_env_checker=True, **arguments)
    except gymnasium.error.Error as error:
        raise SpecpolicyError(
            f"task {task_id}: {error} (task.id is a Gymnasium id; write module:Name-v0 to import what registers it)"
        ) from error
    except (TypeError, ValueError) as error:
        raise SpecpolicyError(f"task {task_id} with {arguments or 'no arguments'}: {error}") from error
    if not isinstance(env.action_space, spaces.Box):
        raise SpecpolicyError(f"task {task_id}: the action space is {env.action_space}; a Box is needed")
    if not task_id.startswith("specpolicy/"):
        from specpolicy.wrappers import DictObservation, SuccessInfo

        env = SuccessInfo(DictObservation(env, task_id))
    observation_keys(task, env)
    return env


def observation_keys(task: Mapping[str, Any], env: gymnasium.Env) -> tuple[str, ...]:
    """Return the keys that a policy of this task observes: the task's own, or all of the environment's."""
    available = list(env.observation_space.spaces)  # type: ignore[attr-defined]
    keys = task.get("observation_keys") or available
    for key in keys:
        if key not in available:
            near = difflib.get_close_matches(key, available, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise SpecpolicyError(f"task {task['id']} has no observation '{key}'{hint}; it has {', '.join(available)}")
    return tuple(keys)


def control_hz(env: gymnasium.Env) -> float:
    """Return control steps per second of the environment's own time, or 20 if unknown."""
    return known_hz(env) or 20.0


def known_hz(env: gymnasium.Env) -> float | None:
    """Return control steps per second of the environment; None if unknown.

    From `env.unwrapped.control_hz`, else the physics step `dt` of MuJoCo environments, else `render_fps`.
    """
    base: Any = env.unwrapped
    if hasattr(base, "control_hz"):
        return parse_hz(base.control_hz, f"{type(base).__name__}.control_hz")
    if isinstance(getattr(base, "dt", None), int | float | np.floating) and base.dt > 0:
        return 1.0 / float(base.dt)
    return parse_hz((env.metadata or {}).get("render_fps") or None, f"render_fps of {type(base).__name__}")


def task_hz(task: Mapping[str, Any]) -> float | None:
    """Return control steps per second of a task; None if unknown.

    Raises:
        SpecpolicyError: its environment cannot be made here.
    """
    if str(task["id"]).startswith("specpolicy/"):  # known without starting a simulator
        import gymnasium
        from gymnasium.envs.registration import load_env_creator

        _import_for(str(task["id"]))
        registered: Any = gymnasium.registry.get(str(task["id"]))
        if registered is not None:
            environment: Any = load_env_creator(registered.entry_point)
            return float(environment.control_hz)
    try:
        env = make_task_env({**task, "observation_keys": None})  # its rate does not depend on the observation keys
    except ImportError as error:
        raise SpecpolicyError(f"task {task['id']}: {error}") from None
    try:
        return known_hz(env)
    finally:
        env.close()


def _import_for(task_id: str) -> None:
    """Import the module that registers the id, where that does not happen by entry point."""
    import gymnasium

    if task_id.startswith("specpolicy/") and task_id not in gymnasium.registry:
        import specpolicy_envs

        specpolicy_envs.register_envs()
    if task_id.startswith("Meta-World/"):
        import metaworld  # noqa: F401
