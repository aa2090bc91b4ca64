"""Videos of episodes, written while they are played."""

import ctypes.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path


@contextmanager
def video_writer(path: str | Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write an mp4 file that browsers play; the block gets a function that takes frames (H, W, 3) uint8.

    The file appears when the block has succeeded.

    Raises:
        SpecpolicyError: the encoder, a program of its own, has written nothing.
    """
    import imageio

    options: Any = {"codec": "libx264", "quality": 7, "macro_block_size": 2, "ffmpeg_log_level": "error"}
    with atomic_path(path) as temporary:
        with imageio.get_writer(temporary, fps=fps, **options) as writer:

            def write(frame: np.ndarray) -> None:
                height, width = frame.shape[:2]
                # yuv420p, the pixel format that browsers play, allows only even sizes.
                writer.append_data(frame[: height // 2 * 2, : width // 2 * 2])  # type: ignore[attr-defined]

            yield write
        if not temporary.stat().st_size:
            raise SpecpolicyError(f"{path} cannot be written: the encoder has made no video of its frames")


def has_screen() -> bool:
    """Whether a window can be opened."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def choose_renderer() -> None:
    """Let MuJoCo draw with EGL if there is no screen, unless the user has chosen or EGL is not installed.

    Call it before mujoco is imported: the import fails if MUJOCO_GL names a library that is missing.
    """
    if not has_screen() and "MUJOCO_GL" not in os.environ and ctypes.util.find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"
