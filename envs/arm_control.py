"""Proportional control of the Panda's gripper in the units of robosuite's OSC_POSE, for the experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specpolicy_envs.expert import Observation

OPEN, CLOSED = -1.0, 1.0
UP = np.array([0.0, 0.0, 1.0])
METRES_PER_UNIT, RADIANS_PER_UNIT = 0.05, 0.5
SPEED_PER_UNIT = 0.256  # m/s that the hand reaches when the same step is repeated
FINGER_AXIS = 1  # in the frame of `robot0_eef_quat`: the line along which the fingers open


def gripper_opening(observation: Observation) -> float:
    """Return the distance between the fingers in metres: 0.08 open, 0 closed on nothing."""
    left, right = observation["robot0_gripper_qpos"]
    return float(left - right)


def wrap(angle: float, period: float = 2 * np.pi) -> float:
    """Return the angle equivalent to `angle` modulo `period` in [-period / 2, period / 2)."""
    return float((angle + period / 2) % period - period / 2)


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation of a unit quaternion (x, y, z, w)."""
    x, y, z, w = (float(value) for value in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def yaw_of(quaternion: np.ndarray) -> float:
    """Return the angle of the body's x axis in the table's plane."""
    rotation = rotation_matrix(quaternion)
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def hand_yaw(observation: Observation) -> float:
    """Return the angle, in the table's plane, of the line along which the fingers open (defined modulo pi)."""
    rotation = rotation_matrix(observation["robot0_eef_quat"])
    return float(np.arctan2(rotation[1, FINGER_AXIS], rotation[0, FINGER_AXIS]))


def move(
    observation: Observation,
    position: Sequence[float] | np.ndarray,
    yaw_error: float,
    gripper: float,
    gain: float = 1.0,
    turn_gain: float = 1.0,
    velocity: np.ndarray | None = None,
) -> np.ndarray:
    """Return the action (7,) that brings the gripper to `position` (3,), turned by `yaw_error`, and keeps it upright.

    `velocity` (2,), in m/s, is that of a target that moves in the table's plane; the gripper then follows it.
    """
    step = gain * (np.asarray(position) - observation["robot0_eef_pos"]) / METRES_PER_UNIT
    if velocity is not None:
        step[:2] += velocity / SPEED_PER_UNIT
    step /= max(1.0, float(np.abs(step).max()))  # keeps the direction
    pointing = rotation_matrix(observation["robot0_eef_quat"])[:, 2]
    turn = np.cross(pointing, [0.0, 0.0, -1.0])
    turn[2] += yaw_error
    turn = np.clip(turn_gain * turn / RADIANS_PER_UNIT, -1.0, 1.0)
    return np.concatenate([step, turn, [gripper]]).astype(np.float32)


def funnel(hand: np.ndarray, target: np.ndarray, hover: float, turn: float = 0.0) -> np.ndarray:
    """Return a waypoint (3,) for the open gripper on its way down to `target` (3,).

    The larger the sideways distance of the hand and the `turn` it still has to make, the higher it stays, up to `hover`
    above the target. A hand that is low but far aside first goes up, so that the fingers do not push the object.
    """
    aside = target[:2] - hand[:2]
    height = np.clip(max(5.0 * (np.hypot(*aside) - 0.012), 0.3 * (abs(turn) - 0.15)), 0.0, hover)
    too_low = target[2] + height - hand[2]
    freedom = np.clip(1.5 - too_low / 0.04, 0.2, 1.0)
    return np.array([*(hand[:2] + freedom * aside), target[2] + height])
