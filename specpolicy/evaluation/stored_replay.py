"""Plays demonstrations again that begin from a stored state of robosuite's simulation.

What is compared is where each joint is, the robot's and those of the free objects, before each action.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from specpolicy.data.stored_states import Stored, StoredStates
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.tapes import Tape
from specpolicy.parsing import one_line

# No pictures: the physics alone is compared. An episode ends where its recording does.
PLAIN = {
    "has_renderer": False,
    "has_offscreen_renderer": False,
    "use_camera_obs": False,
    "ignore_done": True,
}


def play_stored(found: StoredStates, names: tuple[str, ...]) -> Iterator[tuple[str, Tape, Tape]]:
    """Yield the name of each demonstration, its recording, and what its actions do here; positions by joint.

    Raises:
        SpecpolicyError: robosuite has no such environment, scene or state; a damaged recording.
    """
    env = _made(found)
    try:
        for name, stored in found.read(names):
            yield name, *_played(env, stored, f"{found.path}: {name}")
    finally:
        env.close()


def _made(found: StoredStates) -> Any:
    """Return robosuite's environment."""
    from specpolicy_envs.robosuite_task import import_robosuite

    arguments = {key: value for key, value in found.arguments.items() if not key.startswith(("camera", "render_"))}
    try:
        robosuite = import_robosuite()
        robots, controller = arguments.get("robots"), arguments.get("controller_configs")
        robot = robots[0] if isinstance(robots, list) and len(robots) == 1 else robots
        if isinstance(controller, dict) and isinstance(robot, str):  # before robosuite 1.5 it was the arm's alone
            from robosuite.controllers.composite import composite_controller_factory as factory

            arguments["controller_configs"] = factory.refactor_composite_controller_config(controller, robot, ["right"])
        return robosuite.make(found.name, **{**arguments, **PLAIN})
    except Exception as error:  # robosuite raises what it likes
        raise SpecpolicyError(f"{found.path}: robosuite cannot make its {found.name}: {one_line(error)}") from error


def _played(env: Any, stored: Stored, where: str) -> tuple[Tape, Tape]:
    """Set the scene and the first state, give the actions, and return the recording and what happened.

    robosuite records after it has set the scene and the state in this way, too, so that controllers begin alike.
    """
    try:
        env.reset()
        env.reset_from_xml_string(env.edit_model_xml(stored.scene))
        env.sim.reset()
        if stored.states.shape[1] != (size := len(env.sim.get_state().flatten())):
            raise SpecpolicyError(f"{where} has states of {stored.states.shape[1]} numbers, its scene has {size}")
        states = [stored.states[0]]
        env.sim.set_state_from_flattened(stored.states[0])
        env.sim.forward()
        for action in stored.actions[:-1]:
            env.step(action)
            states.append(np.array(env.sim.get_state().flatten()))
    except SpecpolicyError:
        raise
    except Exception as error:
        raise SpecpolicyError(f"{where} cannot be played in this robosuite: {one_line(error)}") from error
    joints = _joints(env.sim.model)
    recorded, again = (
        Tape(0, stored.actions, {name: rows[:, 1 + start : 1 + end] for name, (start, end) in joints.items()})
        for rows in (stored.states, np.stack(states))
    )
    return recorded, again


def _joints(model: Any) -> dict[str, tuple[int, int]]:
    """Return by the joint's name where its position lies among all positions."""
    found = {}
    for name in model.joint_names:
        place = model.get_joint_qpos_addr(name)
        start, end = place if isinstance(place, tuple) else (place, place + 1)
        found[str(name)] = int(start), int(end)
    return found
