"""Wrappers that make a Gymnasium environment of another package look like one of ours."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from specpolicy.errors import SpecpolicyError
from specpolicy.images import as_recorded


class DictObservation(gymnasium.ObservationWrapper):
    """Observations as a dict of arrays: a Box becomes `{"state": ...}`, a Dict keeps its keys.

    Images of bytes stay as they are, everything else becomes float32.
    """

    def __init__(self, env: gymnasium.Env, name: str) -> None:
        super().__init__(env)
        space = env.observation_space
        if isinstance(space, spaces.Box):
            space = spaces.Dict({"state": space})
            self._is_box = True
        else:
            self._is_box = False
        if not isinstance(space, spaces.Dict):
            raise SpecpolicyError(f"task {name}: the observation is {space}; a Box or a Dict of Boxes is needed")
        boxes: dict[str, spaces.Space] = {}
        for key, part in space.spaces.items():
            if not isinstance(part, spaces.Box):
                raise SpecpolicyError(f"task {name}: the observation '{key}' is {part}; a Box is needed")
            low, high = as_recorded(part.low), as_recorded(part.high)
            boxes[key] = spaces.Box(low, high, dtype=low.dtype.type)
        self.observation_space = spaces.Dict(boxes)

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        parts = {"state": observation} if self._is_box else observation
        return {key: as_recorded(value) for key, value in parts.items()}


class SuccessInfo(gymnasium.Wrapper):
    """`info["is_success"]` at every step and reset: the environment's own, else its `success`, else False."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return observation, self._with_success(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._with_success(info)

    @staticmethod
    def _with_success(info: dict[str, Any]) -> dict[str, Any]:
        success = info.get("is_success", info.get("success", False))
        return {**info, "is_success": bool(np.all(success))}
