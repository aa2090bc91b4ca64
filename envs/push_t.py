"""Push-T: a round pusher slides a T-shaped block onto its outline (after the task of Florence et al., 2021).

The scene is our own MJCF (`assets/push_t.xml`), planar and quasi-static. The goal outline does not move.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from specpolicy_envs import push_t_geometry as geometry
from specpolicy_envs.cameras import Views
from specpolicy_envs.push_t_expert import PushTExpert
from specpolicy_envs.push_t_geometry import ARENA, ASSET, PUSHER_RADIUS

__all__ = ["SUCCESS_COVERAGE", "PushT", "PushTExpert"]

SUCCESS_COVERAGE = 0.90


class PushT(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Push the T onto the goal outline; the reward is the share of its area that lies on the goal.

    Action (2,): the pusher's target position in metres, in the world; a stiff spring with a limited force draws the
    pusher there. Observation, float32, metres: `agent_pos` (2,) pusher; `block_pose` and `goal_pose` (4,) as
    (x, y, cos yaw, sin yaw); `keypoints` and `goal_keypoints` (18,), the T's eight corners and its centre of mass,
    (x, y) each. An episode ends with success once the coverage reaches 0.90, and is cut after `max_seconds`.

    Args:
        render_mode: None or "rgb_array" (no screen needed).
        render_size: (height, width) of a frame in pixels.
        max_seconds: time until an episode is truncated.
        cameras: whose pictures are observed, as `<camera>_image` (height, width, 3) uint8; there is `top`.
        camera_size: (height, width) of such a picture in pixels.
        pictures_on_demand: see `specpolicy_envs.cameras`.

    Raises:
        ValueError: for a bad argument.
        RuntimeError: there are cameras, and no OpenGL library works.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10.0}  # type: ignore[misc]
    env_id: ClassVar[str] = "specpolicy/PushT-v0"
    control_hz: float = 10.0
    _goal: np.ndarray  # (3,) pose
    action_noise_scale: float = 0.05
    """Metres per unit of execution noise, so that noise=0.15 displaces the target by 7.5 mm (standard deviation)."""
    default_max_seconds: ClassVar[float] = 30.0

    def __init__(
        self,
        render_mode: str | None = None,
        render_size: Sequence[int] = (256, 256),
        max_seconds: float | None = None,
        cameras: Sequence[str] = (),
        camera_size: Sequence[int] = (84, 84),
        pictures_on_demand: bool = False,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} is unknown: use None or 'rgb_array'")
        size = tuple(int(side) for side in render_size)
        if len(size) != 2 or min(size) < 1 or max(size) > 1024:
            raise ValueError(f"render_size={render_size!r} must be (height, width), each from 1 to 1024")
        self.max_seconds = self.default_max_seconds if max_seconds is None else float(max_seconds)
        if not (math.isfinite(self.max_seconds) and self.max_seconds > 0):
            raise ValueError(f"max_seconds={max_seconds!r} must be a positive number of seconds")
        self.render_mode = render_mode
        self._xml = ASSET.read_text()
        self.model = mujoco.MjModel.from_xml_string(self._xml)
        self.data = mujoco.MjData(self.model)
        self._substeps = round(1.0 / (self.control_hz * self.model.opt.timestep))
        self._max_steps = max(1, round(self.max_seconds * self.control_hz))
        self._views = Views(self.model, (size[0], size[1]), cameras, camera_size, pictures_on_demand)
        self._goal = np.zeros(3)
        self._steps = 0
        self._max_coverage = 0.0
        self.action_space = spaces.Box(-ARENA, ARENA, (2,), np.float32)
        shapes = {"agent_pos": 2, "block_pose": 4, "goal_pose": 4, "keypoints": 18, "goal_keypoints": 18}
        self.observation_space: spaces.Dict = spaces.Dict(  # type: ignore[assignment]
            {key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in shapes.items()}
            | self._views.spaces()
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        mujoco.mj_resetData(self.model, self.data)
        self._goal = self._draw_goal()
        block = self._draw_block()
        pusher = self._draw_pusher(block)
        self.data.qpos[:] = [*block, *pusher]
        self.data.ctrl[:] = pusher
        self._show_goal()
        mujoco.mj_forward(self.model, self.data)
        self._steps = 0
        self._max_coverage = 0.0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        target = np.asarray(action, dtype=np.float64)
        if target.shape != (2,) or not np.isfinite(target).all():
            raise ValueError(f"the action must be two finite numbers (a position in metres), got {action!r}")
        self.data.ctrl[:] = np.clip(target, -ARENA, ARENA)
        self._disturb()
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        mujoco.mj_forward(self.model, self.data)
        self._steps += 1
        info = self._info()
        success = bool(info["is_success"])
        return (
            self._observe(),
            info["coverage"],
            success,
            not success and self._steps >= self._max_steps,
            info,
        )

    def resting_action(self) -> np.ndarray:
        """Return the action (2,) that leaves the pusher where it is: its present target."""
        return np.array(self.data.ctrl)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return (height, width, 3) uint8 from above, or None without a render mode."""
        return None if self.render_mode is None else self._views.render(self.data, "top")

    def close(self) -> None:
        self._views.close()

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras of the scene, observed or not."""
        return self._views.names

    def get_state(self) -> np.ndarray:
        """Return (14,) float64: time, positions, velocities (block x, y, yaw, pusher x, y each), goal x, y, yaw."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel, self._goal])

    def model_xml(self) -> str:
        return self._xml

    def env_args(self) -> dict[str, Any]:
        """Return what robomimic stores beside a dataset to make the environment again (type 2: a Gym environment)."""
        return {
            "env_name": self.env_id,
            "env_version": "0",
            "type": 2,
            "env_kwargs": {"max_seconds": self.max_seconds, **self._views.arguments()},
        }

    # Hooks of the moving task -------------------------------------------------------------------------------------

    def _draw_goal(self) -> np.ndarray:
        return np.array([0.0, 0.0, math.pi / 4])

    def _disturb(self) -> None:
        """Run before the physics of each control step; here nothing moves by itself."""

    # ------------------------------------------------------------------------------------------------------------

    def _draw_block(self) -> np.ndarray:
        while True:
            pose = np.array([*self.np_random.uniform(-0.1, 0.1, 2), self.np_random.uniform(-np.pi, np.pi)])
            if geometry.coverage(pose, self._goal) < 0.5:
                return pose

    def _draw_pusher(self, block: np.ndarray) -> np.ndarray:
        while True:
            position = self.np_random.uniform(-0.28, 0.28, 2)
            local = geometry.to_local(block, position)
            if geometry.distance(local) > PUSHER_RADIUS + 0.01:
                return position

    def _show_goal(self) -> None:
        self.data.mocap_pos[0] = [self._goal[0], self._goal[1], 0.0]
        self.data.mocap_quat[0] = [math.cos(self._goal[2] / 2), 0.0, 0.0, math.sin(self._goal[2] / 2)]

    def _block(self) -> np.ndarray:
        return self.data.qpos[:3]

    def _observe(self) -> dict[str, Any]:
        block, goal = self._block(), self._goal
        observation = {
            "agent_pos": self.data.qpos[3:5],
            "block_pose": np.array([block[0], block[1], math.cos(block[2]), math.sin(block[2])]),
            "goal_pose": np.array([goal[0], goal[1], math.cos(goal[2]), math.sin(goal[2])]),
            "keypoints": geometry.transform(block, geometry.KEYPOINTS).ravel(),
            "goal_keypoints": geometry.transform(goal, geometry.KEYPOINTS).ravel(),
        }
        vectors = {key: value.astype(np.float32) for key, value in observation.items()}
        return vectors | self._views.observe(self.data)

    def _info(self) -> dict[str, Any]:
        coverage = geometry.coverage(self._block(), self._goal)
        self._max_coverage = max(self._max_coverage, coverage)
        return {
            "is_success": coverage >= SUCCESS_COVERAGE,
            "coverage": coverage,
            "max_coverage": self._max_coverage,
        }
