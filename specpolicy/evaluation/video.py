"""Videos of episodes, written while they are played."""

import ctypes.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.files import atomic_path


@contextmanager
def video_writer(path: str | Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write an mp4 file that browsers play; the block is given a function that takes frames (H, W, 3) uint8.

    The file appears when the block has succeeded.
    """
    import imageio

    # Blocks of two pixels are the least that the pixel format yuv420p allows; odd sizes are scaled up by one.
    options: Any = {"codec": "libx264", "quality": 7, "macro_block_size": 2, "ffmpeg_log_level": "error"}
    with atomic_path(path) as temporary, imageio.get_writer(temporary, fps=fps, **options) as writer:
        yield writer.append_data  # type: ignore[attr-defined]


def has_screen() -> bool:
    """Whether a window could be opened."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def choose_renderer() -> None:
    """Without a screen let MuJoCo draw by EGL, unless the user has chosen or EGL is not installed.

    To be called before mujoco is imported, which fails if it is asked for a library that is not there.
    """
    if not has_screen() and "MUJOCO_GL" not in os.environ and ctypes.util.find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"
