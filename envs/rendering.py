"""Frames of a MuJoCo simulation without a screen.

`mujoco.Renderer` uses the OpenGL library chosen when `mujoco` was first imported. Without a screen that is the wrong
one, so here the choice is made at the first frame.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import weakref
from typing import Any

import mujoco
import numpy as np


class OffscreenRenderer:
    """Draws (height, width, 3) uint8 frames of one model.

    Raises:
        RuntimeError: no OpenGL library works.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self._context = _gl_context(width, height)
        self._context.make_current()
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # by robosuite's convention: the shapes used for contact only
        self._scene = mujoco.MjvScene(model, maxgeom=5000)
        self._mujoco_context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mujoco_context)
        # Frees the context also when nobody calls close(). At exit that must come before mujoco ends the
        # OpenGL library in its own atexit hook: hooks run last in, first out.
        self._release = weakref.finalize(self, _release, self._context, self._mujoco_context)
        self._release.atexit = False
        atexit.register(self._release)

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return one frame (height, width, 3) uint8 from the named camera."""
        self._context.make_current()
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(self._model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._mujoco_context)
        frame = np.empty((self._rect.height, self._rect.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(frame, None, self._rect, self._mujoco_context)
        return np.ascontiguousarray(frame[::-1])  # OpenGL counts rows from below

    def close(self) -> None:
        self._release()
        atexit.unregister(self._release)


def _release(context: Any, mujoco_context: mujoco.MjrContext) -> None:
    context.make_current()
    mujoco_context.free()
    context.free()


def _gl_context(width: int, height: int) -> Any:
    """Return the OpenGL context that MUJOCO_GL asks for, else the first one that works."""
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    on_linux = sys.platform.startswith("linux")
    names = [asked] if asked in ("egl", "osmesa", "glfw") else ["egl", "osmesa"] if on_linux else ["glfw"]
    failures = []
    for name in names:
        try:
            return importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        except Exception as error:  # a missing library raises AttributeError, ImportError, OSError or GLError
            failures.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    raise RuntimeError(
        "cannot render: no OpenGL library works without a screen. Install one (Debian: libegl1 and "
        f"libgl1-mesa-dri, or libosmesa6) or make the environment with render_mode=None. Tried {'; '.join(failures)}"
    )
