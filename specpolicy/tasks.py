"""A task configuration as a Gymnasium environment: Dict observations, `info["is_success"]` always present.

A task is a mapping with the keys `name`, `id`, `kwargs` (for `gymnasium.make`), `observation_keys` and
`proprioception`, for environments of other packages `rename`, and for the shipped tasks `cameras` and `camera_size`.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.rates import parse_hz

if TYPE_CHECKING:
    import gymnasium

METAWORLD = "Meta-World/"
CAMERA_KEYS = ("cameras", "camera_size", "proprioception")
DEFAULT_CAMERA_SIZE = (84, 84)  # height and width, as in robomimic's data sets


def make_task_env(task: Mapping[str, Any], **kwargs: Any) -> gymnasium.Env:
    """Return the task's environment.

    Its observation is a dict of arrays, images of bytes and float32 for the rest (a Box observation becomes `{"state":
    ...}`), its action space a Box, and every `info`, that of `reset` included, has a bool `is_success`.

    The pictures of a task's `cameras` are drawn when they are looked at, by `np.asarray` or `np.stack`, and then once;
    they show the world as it was when they were observed, whenever that is.

    Args:
        task: `id`, and optionally `kwargs`, `observation_keys`, `rename` (see `RenamedObservation`), `cameras` (names)
            and `camera_size` ([height, width]).
        **kwargs: more arguments of `gymnasium.make`, such as `render_mode`; they override the task's own.

    Raises:
        SpecpolicyError: an unknown id, arguments the environment refuses, spaces a policy cannot use, missing
            observation keys or cameras, names that cannot be given, cameras where nothing can be drawn.
    """
    import gymnasium
    from gymnasium import spaces

    from specpolicy.wrappers import FOREIGN, DictObservation, RenamedObservation, SeededReset, SuccessInfo

    task_id = str(task["id"])
    _import_for(task_id)
    cameras = _cameras(task)
    drawn = {"seed": 0} if task_id.startswith(METAWORLD) else {}  # of the goals that it makes when it is made
    arguments = {**drawn, **dict(task.get("kwargs") or {}), **cameras, **kwargs}
    try:
        with FOREIGN:
            env = gymnasium.make(task_id, disable_env_checker=True, **arguments)
    except gymnasium.error.Error as error:
        raise SpecpolicyError(
            f"task {task_id}: {error} (task.id is a Gymnasium id; write module:Name-v0 to import what registers it)"
        ) from error
    except ModuleNotFoundError as error:
        if error.name is not None:  # a package that its module needs
            raise
        raise SpecpolicyError(f"task {task_id}: {error}") from error
    except (TypeError, ValueError) as error:
        raise SpecpolicyError(f"task {task_id} with {arguments or 'no arguments'}: {error}") from error
    except RuntimeError as error:
        if not cameras:
            raise
        raise SpecpolicyError(f"task {task_id} with cameras={cameras['cameras']}: {error}") from error
    if not isinstance(env.action_space, spaces.Box):
        raise SpecpolicyError(f"task {task_id}: the action space is {env.action_space}; a Box is needed")
    if not task_id.startswith("specpolicy/"):
        if task_id.startswith(METAWORLD):
            env = SeededReset(env)
        env = DictObservation(env, task_id)
        if task.get("rename"):
            env = RenamedObservation(env, task["rename"], task_id)
        env = SuccessInfo(env)
    elif task.get("rename"):
        raise SpecpolicyError(f"task.rename: {task_id} is a shipped task, whose observations keep their names")
    observation_keys(task, env)
    return env


def observation_keys(task: Mapping[str, Any], env: gymnasium.Env) -> tuple[str, ...]:
    """Return the keys that a policy of this task observes: the task's own, or all of the environment's."""
    from specpolicy.wrappers import name_hint

    available = list(env.observation_space.spaces)  # type: ignore[attr-defined]
    keys = task.get("observation_keys") or available
    for key in keys:
        if key not in available:
            hint = with_cameras([key], env) or name_hint(key, available)
            hint = f"; {hint}" if hint else ""
            raise SpecpolicyError(f"task {task['id']} has no observation '{key}'{hint}; it has {', '.join(available)}")
    return tuple(keys)


def with_cameras(keys: Collection[str], env: gymnasium.Env) -> str | None:
    """The setting that adds images `keys` to what an environment observes; None if its cameras take no such images."""
    there = getattr(env.unwrapped, "camera_names", ())
    observed = [name for name in there if f"{name}_image" in env.observation_space.spaces]  # type: ignore[attr-defined]
    names = [key.removesuffix("_image") for key in keys]
    if not names or not all(name in there and key.endswith("_image") for name, key in zip(names, keys, strict=True)):
        return None
    return f"task.cameras=[{','.join(dict.fromkeys([*observed, *names]))}] gives it"


def kept_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as data and results keep it: without what concerns cameras if it has none, and without an empty `rename`,
    so that what was made before there were any is still known as the same."""
    kept = {key: value for key, value in task.items() if task.get("cameras") or key not in CAMERA_KEYS}
    return {key: value for key, value in kept.items() if key != "rename" or value}


def has_absolute_actions(task: Mapping[str, Any]) -> bool:
    """Whether a shipped task's actions are poses in place of changes of pose, see `specpolicy_envs.arm_poses`."""
    return bool((task.get("kwargs") or {}).get("absolute_actions"))


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
        env = make_task_env({**task, "observation_keys": None, "rename": {}})  # neither changes its rate
    except ImportError as error:
        raise SpecpolicyError(f"task {task['id']}: {error}") from None
    try:
        return known_hz(env)
    finally:
        env.close()


def _cameras(task: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an environment with the task's cameras; {} if it has none."""
    names = task.get("cameras") or []
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        return {}
    if not str(task["id"]).startswith("specpolicy/"):
        raise SpecpolicyError(
            f"task.cameras={names}: {task['id']} has none to give, the shipped tasks alone have; images that it "
            "observes by itself are observations like any other"
        )
    size = task.get("camera_size") or DEFAULT_CAMERA_SIZE
    return {"cameras": names, "camera_size": size, "pictures_on_demand": True}


def _import_for(task_id: str) -> None:
    """Import the module that registers the id, where that does not happen by entry point."""
    import gymnasium

    if task_id.startswith("specpolicy/") and task_id not in gymnasium.registry:
        import specpolicy_envs

        specpolicy_envs.register_envs()
    if task_id.startswith(METAWORLD):
        import metaworld  # noqa: F401
    module = task_id.partition(":")[0]
    if module == "gym_aloha" and not os.environ.get("DISPLAY") and ctypes.util.find_library("EGL"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # dm_control draws at every step, and asks for a screen otherwise
    if module in ("gym_pusht", "gym_aloha"):  # Gymnasium's error would not say which package is missing
        importlib.import_module(module)
