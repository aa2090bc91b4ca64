"""Images from the cameras of a scene: drawn at once, or on demand.

Drawing an image takes many times as long as a control step, and a policy looks at few images: for example at 2 of 8
control steps. So a loop may ask for images on demand. Such an image stores the moment that it shows, which takes
microseconds, and is drawn when `numpy.asarray` needs it, at once or some steps later. To the bit, it is the same image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from specpolicy_envs.rendering import OffscreenRenderer

MOST_PIXELS = 4096  # pixels of a side of an image


class Picture:
    """The image of a camera at one moment, drawn when it is first looked at: `numpy.asarray(picture)`.

    Attributes:
        shape: (height, width, 3).
        dtype: uint8.
        drawn_on_demand: True, which tells a loop that looking at it takes time.
    """

    drawn_on_demand = True
    dtype = np.dtype(np.uint8)

    def __init__(self, views: Views, scene: mujoco.MjvScene, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._views = views
        self._scene: mujoco.MjvScene | None = scene
        self._frame: np.ndarray | None = None

    @property
    def ndim(self) -> int:
        """Three."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the image (height, width, 3); the same array each time, which must not be changed."""
        if self._frame is None:
            assert self._scene is not None
            self._frame = self._views.draw(self._scene)
            self._frame.flags.writeable = False
            self._give_back()
        frame = self._frame if dtype is None else self._frame.astype(dtype, copy=False)
        return np.array(frame) if copy else frame

    def __del__(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        scene, self._scene = getattr(self, "_scene", None), None
        if scene is not None:
            self._views.spare.append(scene)


class Views:
    """The images of one simulation: those of its cameras for the observation, and frames for a video.

    Args:
        model: the model of the scene.
        render_size: (height, width) of a frame for a video, in pixels.
        cameras: names of the cameras in the observation; empty: no images.
        camera_size: (height, width) of their images.
        on_demand: observe a `Picture`, which is drawn when it is looked at; False: arrays.

    Raises:
        ValueError: there is no such camera, or the size is not valid.
        RuntimeError: there are cameras, and no OpenGL library works.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        render_size: tuple[int, int],
        cameras: Sequence[str] = (),
        camera_size: Sequence[int] = (84, 84),
        on_demand: bool = False,
    ) -> None:
        self._model, self._render_size, self._on_demand = model, render_size, on_demand
        self.cameras = tuple([cameras] if isinstance(cameras, str) else cameras)
        self.names = tuple(str(model.camera(index).name) for index in range(model.ncam))
        for name in self.cameras:
            if name not in self.names:
                raise ValueError(f"there is no camera {name!r}: there are {', '.join(self.names)}")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras={list(self.cameras)} names one twice")
        size = tuple(camera_size)
        whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in size)
        if len(size) != 2 or not whole or not all(1 <= side <= MOST_PIXELS for side in size):
            raise ValueError(f"camera_size={list(size)}: expected [height, width], each from 1 to {MOST_PIXELS} pixels")
        self.camera_size = int(size[0]), int(size[1])
        self.spare: list[mujoco.MjvScene] = []  # from images that have been drawn, or that nobody looked at
        self._renderer: OffscreenRenderer | None = None
        if self.cameras:
            self._opened()  # a missing library is reported now, and not in the middle of an episode

    def spaces(self) -> dict[str, spaces.Box]:
        """Observation spaces by key, `<camera>_image`."""
        return {f"{name}_image": spaces.Box(0, 255, (*self.camera_size, 3), np.uint8) for name in self.cameras}

    def arguments(self) -> dict[str, Any]:
        """The arguments that make an environment with these cameras: {} if there are none."""
        return {"cameras": list(self.cameras), "camera_size": list(self.camera_size)} if self.cameras else {}

    def observe(self, data: mujoco.MjData) -> dict[str, Any]:
        """Return the images of this moment by key, (height, width, 3) uint8, drawn at once or on demand."""
        pictures = {}
        for name in self.cameras:
            scene = self._opened().scene(data, name, self.spare.pop() if self.spare else None)
            picture = Picture(self, scene, (*self.camera_size, 3))
            pictures[f"{name}_image"] = picture if self._on_demand else np.array(picture)
        return pictures

    def draw(self, scene: mujoco.MjvScene) -> np.ndarray:
        """Draw a scene that `observe` has stored."""
        return self._opened().draw(scene, self.camera_size)

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return a frame for a video."""
        renderer = self._opened()
        return renderer.draw(renderer.scene(data, camera), self._render_size)

    def close(self) -> None:
        """Release the graphics library; a later drawing opens it again."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _opened(self) -> OffscreenRenderer:
        if self._renderer is None:
            sizes = [self._render_size, *([self.camera_size] if self.cameras else [])]
            height, width = (max(sides) for sides in zip(*sizes, strict=True))
            self._renderer = OffscreenRenderer(self._model, height, width)
        return self._renderer
