"""MuJoCo tasks and their scripted experts, registered with Gymnasium as `specpolicy/<Task>-v0`.

`import specpolicy_envs` registers the tasks without loading a simulator; `gymnasium.make` loads it. In one line:
`gymnasium.make("specpolicy_envs:specpolicy/Lift-v0")`. (Gymnasium 1.x itself no longer loads plugins.)
"""

from __future__ import annotations

import importlib

import gymnasium

from specpolicy_envs.expert import Expert

__all__ = ["EXPERTS", "TASKS", "Expert", "make_expert", "register_envs"]

TASKS = {
    "specpolicy/Lift-v0": "specpolicy_envs.lift:Lift",
    "specpolicy/PickPlaceCan-v0": "specpolicy_envs.pick_place_can:PickPlaceCan",
    "specpolicy/NutAssemblySquare-v0": "specpolicy_envs.nut_assembly_square:NutAssemblySquare",
    "specpolicy/PushT-v0": "specpolicy_envs.push_t:PushT",
    "specpolicy/LiftConveyor-v0": "specpolicy_envs.lift_conveyor:LiftConveyor",
    "specpolicy/PushTMoving-v0": "specpolicy_envs.push_t_moving:PushTMoving",
}
EXPERTS = {env_id: f"{entry_point}Expert" for env_id, entry_point in TASKS.items()}


def register_envs() -> None:
    """Register the tasks with Gymnasium. Called on import; calling it again is harmless."""
    for env_id, entry_point in TASKS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)


def make_expert(env_id: str, seed: int, absolute_actions: bool = False) -> Expert:
    """Return the scripted expert of one of the tasks above, with `absolute_actions` for a task that has them.

    Raises:
        ValueError: a task that has none.
    """
    if env_id not in EXPERTS:
        raise ValueError(f"no scripted expert for {env_id!r}; there is one for each of: {', '.join(EXPERTS)}")
    module, name = EXPERTS[env_id].split(":")
    expert = getattr(importlib.import_module(module), name)()
    if absolute_actions:
        from specpolicy_envs.arm_poses import PoseExpert

        expert = PoseExpert(expert)
    expert.reset(seed)
    return expert


register_envs()
