"""A tiny environment whose outcome depends on every action, so that evaluation is tested without a simulator."""

import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Drift(gymnasium.Env):
    """A point (2,) is to leave a circle. The action is its velocity; a draught from the seed pushes it about.

    Args:
        coverage: report how far out it is as `coverage`.
        pause: seconds that a step takes.
        dies_at: seed whose episode kills the process.
        blind: refuse to draw, as a machine without an OpenGL library does.
        scatter: standard deviation of the place where it begins.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        radius=1.5,
        max_steps=30,
        coverage=False,
        pause=0.0,
        dies_at=None,
        blind=False,
        scatter=0.0,
        render_mode=None,
    ):
        self.radius, self.max_steps, self.coverage, self.pause = radius, max_steps, coverage, pause
        self.dies_at, self.blind, self.scatter, self.render_mode = dies_at, blind, scatter, render_mode
        self.observation_space = spaces.Dict(
            {"position": spaces.Box(-9, 9, (2,), np.float32), "object": spaces.Box(-9, 9, (3,), np.float32)}
        )
        self.action_space = spaces.Box(-0.5, 0.5, (2,), np.float32)
        self.executed = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None and seed == self.dies_at:
            import os

            os._exit(3)
        self.position = self.np_random.normal(0, self.scatter, 2) if self.scatter else np.zeros(2)
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action):
        time.sleep(self.pause)
        self.executed.append(np.array(action))
        self.position = self.position + action + self.np_random.normal(0, 0.02, 2)
        self.steps += 1
        info = self._info()
        reward = float(np.linalg.norm(self.position))
        return self._observe(), reward, info["is_success"], self.steps >= self.max_steps, info

    def render(self):
        if self.blind:
            raise RuntimeError("no OpenGL library works here")
        frame = np.full((33, 32, 3), 255, np.uint8)  # an odd height, which the video format does not allow
        row, column = np.clip(16 + 8 * self.position, 0, 31).astype(int)
        frame[row, column] = 0
        return frame

    def _observe(self):
        wall = np.array([self.radius, self.steps / 10, 0.0])
        return {"position": self.position.astype(np.float32), "object": wall.astype(np.float32)}

    def _info(self):
        distance = float(np.linalg.norm(self.position))
        coverage = {"coverage": min(1.0, distance / self.radius)} if self.coverage else {}
        return {"is_success": distance > self.radius, **coverage}


gymnasium.register("Drift-v0", entry_point=Drift)
