"""A robosuite task with one Panda arm as a Gymnasium environment with robomimic's observation keys."""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from specpolicy_envs.arm_control import rotation_matrix
from specpolicy_envs.arm_poses import HIGH, LOW, NOISE_SCALE, change_to, pose_of
from specpolicy_envs.expert import Observation

ACTION_DIM = 7
CONTROL_HZ = 20
# Changes of the gripper's pose, relative to the robot's base: 0.05 m and 0.5 rad per unit of action.
CONTROLLER = {
    "type": "BASIC",
    "body_parts": {
        "right": {
            "type": "OSC_POSE",
            "input_max": 1,
            "input_min": -1,
            "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
            "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
            "kp": 150,
            "damping_ratio": 1,
            "impedance_mode": "fixed",
            "kp_limits": [0, 300],
            "damping_ratio_limits": [0, 10],
            "position_limits": None,
            "orientation_limits": None,
            "uncouple_pos_ori": True,
            "input_type": "delta",
            "input_ref_frame": "base",
            "interpolation": None,
            "ramp_ratio": 0.2,
            "gripper": {"type": "GRIP"},
        }
    },
}
ROBOT_KEYS = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}


@functools.cache
def import_robosuite() -> Any:
    """Import robosuite, without its start-up noise and without its side effect on MUJOCO_GL.

    On import it sets MUJOCO_GL=egl. A child process would inherit that, and on a machine without EGL it could then not
    even import mujoco.
    """
    chosen = os.environ.get("MUJOCO_GL")
    logger = logging.getLogger("robosuite_logs")
    logger.addFilter(lambda record: record.levelno >= logging.ERROR)
    import robosuite

    if chosen is None:
        os.environ.pop("MUJOCO_GL", None)
    else:
        os.environ["MUJOCO_GL"] = chosen
    return robosuite


class RobosuiteTask(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One robosuite task at 20 Hz. Actions (7,) in [-1, 1]: change of the gripper's pose, -1 open or 1 closed; with
    `absolute_actions` (10,): the pose itself, see `specpolicy_envs.arm_poses`.

    Observations are float32 under robomimic's keys; positions in metres, quaternions as (x, y, z, w). The
    episode terminates on success and is truncated after `max_seconds`. `reset(seed=)` determines it fully.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012 (as Gymnasium has it)
    observation_space: spaces.Dict  # type: ignore[assignment]
    action_space: spaces.Box  # type: ignore[assignment]
    control_hz = float(CONTROL_HZ)

    robosuite_name: ClassVar[str]
    object_size: ClassVar[int]
    object_quaternions: ClassVar[tuple[int, ...]]  # starts of the quaternions in `object`
    camera: ClassVar[str] = "agentview"

    def __init__(
        self,
        max_seconds: float,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (256, 256),
        canonical_quaternions: bool = True,
        cameras: Sequence[str] = (),
        camera_size: Sequence[int] = (84, 84),
        pictures_on_demand: bool = False,
        absolute_actions: bool = False,
    ) -> None:
        """Make the task; `canonical_quaternions=False` keeps the signs of robosuite's quaternions, for policies trained
        on those.

        A quaternion and its negative are one rotation. robosuite's sign flips back and forth while the gripper points
        down, and a network then sees two far points for one pose. Canonical means that the largest component is
        positive.

        The observation of each of `cameras` is `<camera>_image`, (height, width, 3) uint8 of `camera_size`; see
        `specpolicy_envs.cameras` for pictures on demand.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is None or 'rgb_array', not {render_mode!r}")
        if max_seconds <= 0:
            raise ValueError(f"max_seconds must be positive, not {max_seconds}")
        self.render_mode = render_mode
        self._max_steps = round(max_seconds * CONTROL_HZ)
        self._steps = 0
        self._canonical_quaternions = canonical_quaternions
        self._simulation = self._make_simulation()
        from specpolicy_envs.cameras import Views  # here, as the experts, which come with the tasks, need no simulator

        self._views = Views(self.model, render_size, cameras, camera_size, pictures_on_demand)
        self.absolute_actions = bool(absolute_actions)
        low, high = (LOW, HIGH) if absolute_actions else (-np.ones(ACTION_DIM), np.ones(ACTION_DIM))
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        self.action_noise_scale = NOISE_SCALE if absolute_actions else np.ones(ACTION_DIM)
        sizes = {"object": self.object_size, **ROBOT_KEYS}
        self._keys = tuple(sizes)
        self.observation_space = spaces.Dict(
            {key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()}
            | self._views.spaces()
        )

    def _make_simulation(self) -> Any:
        return import_robosuite().make(self.robosuite_name, **self._robosuite_kwargs())

    def _robosuite_kwargs(self) -> dict[str, Any]:
        return {
            "robots": "Panda",
            "controller_configs": copy.deepcopy(CONTROLLER),
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "use_camera_obs": False,
            "use_object_obs": True,
            "reward_shaping": False,
            "control_freq": CONTROL_HZ,
            "ignore_done": True,
            "hard_reset": False,  # keeps the compiled model: a reset takes 2 ms, not 700
            "seed": 0,  # of the random numbers that are drawn once, when the model is built: the cube's size
        }

    def env_args(self) -> dict[str, Any]:
        """Return what robomimic stores to build the simulation again (type 1: robosuite)."""
        if self.absolute_actions:  # robosuite knows only changes
            return self._gymnasium_args()
        version = import_robosuite().__version__
        kwargs = self._robosuite_kwargs()
        if self._views.cameras:
            height, width = self._views.camera_size
            kwargs |= {
                "has_offscreen_renderer": True,
                "use_camera_obs": True,
                "camera_names": list(self._views.cameras),
                "camera_heights": height,
                "camera_widths": width,
                "camera_depths": False,
            }
        return {"env_name": self.robosuite_name, "env_version": version, "type": 1, "env_kwargs": kwargs}

    def _gymnasium_args(self) -> dict[str, Any]:
        """Return what robomimic stores to make the environment again by its Gymnasium id (type 2)."""
        kwargs = {"max_seconds": self._max_steps / CONTROL_HZ, **self._views.arguments()}
        kwargs |= {"absolute_actions": True} if self.absolute_actions else {}
        name, version = f"specpolicy/{type(self).__name__}-v0", import_robosuite().__version__
        return {"env_name": name, "env_version": version, "type": 2, "env_kwargs": kwargs}

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras of the scene, observed or not."""
        return self._views.names

    @property
    def model(self) -> Any:
        """The compiled scene, a `mujoco.MjModel`."""
        return self._simulation.sim.model._model

    @property
    def data(self) -> Any:
        """The state of the simulation, a `mujoco.MjData`."""
        return self._simulation.sim.data._data

    def get_state(self) -> np.ndarray:
        """Return the simulator's state as robomimic stores it: time, positions, velocities; (N,) float64."""
        return np.array(self._simulation.sim.get_state().flatten(), dtype=np.float64)

    def model_xml(self) -> str:
        """Return the MJCF of the scene."""
        return self._simulation.model.get_xml()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        sampler = self._simulation.placement_initializer
        for part in (self._simulation, sampler, *getattr(sampler, "samplers", {}).values()):
            part.rng = self.np_random
        self._simulation.reset()
        return self._observation(), {"is_success": self._is_success()}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != self.action_space.shape or not np.isfinite(wanted).all():
            raise ValueError(f"the action must be {self.action_space.shape[0]} finite numbers, got {action!r}")
        action = np.clip(wanted, self.action_space.low, self.action_space.high)
        self._simulation.step(change_to(self._pose, action) if self.absolute_actions else action)
        self._steps += 1
        success = self._is_success()
        truncated = not success and self._steps >= self._max_steps
        return self._observation(), float(success), success, truncated, {"is_success": success}

    def __deepcopy__(self, memo: Any) -> Any:
        """Refuse: robosuite's observables stay bound to the first simulation, so a copy would observe that one."""
        raise TypeError("a robosuite task cannot be copied: make another one and reset it with the same seed")

    def resting_action(self) -> np.ndarray:
        """Return the action (7,) or (10,) that leaves the arm as it is, and the gripper neither opens nor closes."""
        return pose_of(self._pose) if self.absolute_actions else np.zeros(ACTION_DIM)

    @classmethod
    def seen_from(cls, observation: Observation, arm: Observation) -> Observation:
        """Return an observation with the scene of one and the arm of another: what is relative to the gripper is
        computed anew."""
        mixed = {**observation, **{key: arm[key] for key in ROBOT_KEYS}}
        mixed["object"] = cls._object_from(observation["object"], arm["robot0_eef_pos"], arm["robot0_eef_quat"])
        return mixed

    @classmethod
    def _object_from(cls, object_: np.ndarray, position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
        """Return `object` as the gripper sees it from a pose: relative position and quaternion (7,), then those in the
        world (7,)."""
        turn = rotation_matrix(quaternion).T
        relative = np.concatenate([turn @ (object_[7:10] - position), _difference(quaternion, object_[10:14])])
        _fix_sign(relative[3:])
        return np.concatenate([relative, object_[7:]]).astype(object_.dtype)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return a frame (height, width, 3) uint8, or None without a render mode."""
        return None if self.render_mode is None else self._views.render(self.data, self.camera)

    def close(self) -> None:
        self._views.close()

    def _is_success(self) -> bool:
        return bool(self._simulation._check_success())

    def _observation(self) -> dict[str, Any]:
        # Forced: robosuite samples its sensors on a separate clock, which can lag by a simulation step.
        raw = self._simulation._get_observations(force_update=True)
        raw["object"] = raw["object-state"]
        observation: dict[str, Any] = {key: np.array(raw[key], dtype=np.float32) for key in self._keys}
        self._pose = {key: np.array(raw[key], dtype=np.float32) for key in ROBOT_KEYS}
        if self._canonical_quaternions:
            _fix_sign(observation["robot0_eef_quat"])
            for start in self.object_quaternions:
                _fix_sign(observation["object"][start : start + 4])
        return observation | self._views.observe(self.data)


def _difference(base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the rotation from the quaternion `base` to `other`, all (4,) as (x, y, z, w), in the frame of `base`."""
    vector, scalar = base[:3], base[3]
    turned = scalar * other[:3] - other[3] * vector - np.cross(vector, other[:3])
    return np.concatenate([turned, [scalar * other[3] + vector @ other[:3]]])


def _fix_sign(quaternion: np.ndarray) -> None:
    """Negate `quaternion` (4,) in place if its largest component is negative."""
    if quaternion[np.abs(quaternion).argmax()] < 0:
        np.negative(quaternion, out=quaternion)
