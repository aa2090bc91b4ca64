"""A window that shows an episode as it is played, at the task's own speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.tasks import control_hz

if TYPE_CHECKING:
    import gymnasium


def has_physics(env: gymnasium.Env) -> bool:
    """Whether the environment exposes its MuJoCo `model` and `data`, which MuJoCo's viewer needs."""
    return hasattr(env.unwrapped, "model") and hasattr(env.unwrapped, "data")


@contextmanager
def window(env: gymnasium.Env) -> Iterator[Callable[[], None]]:
    """Open a window; the block gets a function to call once per frame.

    Environments that expose `model` and `data` are shown in MuJoCo's viewer, where the mouse turns the scene. Others
    are shown in their own window and must be made with render_mode="human". The function sleeps so that a control step
    takes its real time; while the policy computes, the world stands still.

    Raises:
        SpecpolicyError: no window can be opened.
    """
    pace = _pacer(control_hz(env))
    if env.render_mode == "human":

        def show() -> None:
            env.render()
            pace()

        yield show
        return
    import mujoco.viewer

    physics: Any = env.unwrapped
    try:
        viewer = mujoco.viewer.launch_passive(physics.model, physics.data, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:  # on macOS: only mjpython can open it
        raise SpecpolicyError(f"cannot open a window: {error}; viewer=false goes without") from error
    if env.spec and env.spec.id.startswith("specpolicy/"):
        viewer.opt.geomgroup[0] = 0  # robosuite's convention: shapes used only for contact
        _look_from(viewer.cam, physics.model, physics.data, getattr(physics, "camera", 0))
    with viewer:

        def synchronise() -> None:
            if viewer.is_running():
                viewer.sync()
                pace()

        yield synchronise


def _look_from(free_camera: Any, model: Any, data: Any, camera: str | int) -> None:
    """Let the viewer's free camera show what the scene's own `camera` shows; the mouse can still turn it."""
    position = data.camera(camera).xpos
    forward = -data.camera(camera).xmat.reshape(3, 3)[:, 2]
    depth = max(0.1, float((model.stat.center - position) @ forward))
    angles = np.radians([model.camera(camera).fovy[0], model.vis.global_.fovy])
    free_camera.lookat[:] = position + depth * forward
    free_camera.distance = depth * np.divide(*np.tan(angles / 2))
    free_camera.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
    free_camera.elevation = np.degrees(np.arcsin(np.clip(forward[2], -1, 1)))


def _pacer(hz: float) -> Callable[[], None]:
    """Return a function that sleeps until 1 / hz seconds after its last call."""
    last = time.monotonic()

    def pace() -> None:
        nonlocal last
        time.sleep(max(0.0, last + 1.0 / hz - time.monotonic()))
        last = time.monotonic()

    return pace
