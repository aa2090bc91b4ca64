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
    """Draws frames of one model, what is in sight now or what was: a `scene` keeps a moment and costs microseconds.

    Frames may be drawn by any thread, one at a time.

    Args:
        model: what is drawn.
        height: of the largest frame, in pixels.
        width: the same.

    Raises:
        RuntimeError: no OpenGL library works.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self._context = _gl_context(width, height)
        self._context.make_current()
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._model = model
        self._size = height, width
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # by robosuite's convention: the shapes used for contact only
        self._most_shapes = 2 * (model.ngeom + model.nsite) + 100
        self._mujoco_context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mujoco_context)
        _let_go(self._context)
        # Frees the context also when nobody calls close(). At exit that must come before mujoco ends the
        # OpenGL library in its own atexit hook: hooks run last in, first out.
        self._release = weakref.finalize(self, _release, self._context, self._mujoco_context)
        self._release.atexit = False
        atexit.register(self._release)

    def scene(self, data: mujoco.MjData, camera: str, into: mujoco.MjvScene | None = None) -> mujoco.MjvScene:
        """Return what the named camera sees now, to be drawn at once or later. into: a scene that is filled anew."""
        scene = mujoco.MjvScene(self._model, maxgeom=self._most_shapes) if into is None else into
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(self._model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL, scene)
        return scene

    def draw(self, scene: mujoco.MjvScene, size: tuple[int, int] | None = None) -> np.ndarray:
        """The frame of a scene, (height, width, 3) uint8. size: (height, width); None: the largest."""
        height, width = size or self._size
        rect = mujoco.MjrRect(0, 0, width, height)
        frame = np.empty((height, width, 3), dtype=np.uint8)
        self._context.make_current()
        try:
            mujoco.mjr_render(rect, scene, self._mujoco_context)
            mujoco.mjr_readPixels(frame, None, rect, self._mujoco_context)
        finally:
            _let_go(self._context)
        return np.ascontiguousarray(frame[::-1])  # OpenGL counts rows from below

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """One frame (height, width, 3) uint8 from the named camera, of the largest size."""
        return self.draw(self.scene(data, camera))

    def close(self) -> None:
        """Free what is held of the graphics library."""
        self._release()
        atexit.unregister(self._release)


def _let_go(context: Any) -> None:
    """Take the context from this thread: as long as one has it, no other can draw with it."""
    if type(context).__module__ == "mujoco.egl":
        egl = importlib.import_module("mujoco.egl")
        egl.EGL.eglMakeCurrent(egl.EGL_DISPLAY, egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_CONTEXT)
    elif type(context).__module__ == "mujoco.osmesa":
        library = importlib.import_module("mujoco.osmesa")
        library.osmesa.OSMesaMakeCurrent(None, None, library.GL.GL_FLOAT, 0, 0)


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
        "libgl1-mesa-dri, or libosmesa6) or make the environment with render_mode=None and without cameras. "
        f"Tried {'; '.join(failures)}"
    )
