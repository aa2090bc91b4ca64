"""Poses of the Panda's gripper as actions, in place of changes of its pose.

A change counts from where the gripper is when it is executed, a pose does not. So a plan of poses that is executed
late, or after the end of another plan, still leads where it was meant to. robomimic calls such actions absolute.

An action is (10,): position in the world in metres; the first two rows of the rotation matrix, which a network learns
better than angles (Zhou et al. 2019, arXiv 1812.07035); the gripper, -1 open or 1 closed.
"""

from __future__ import annotations

import numpy as np

from specpolicy_envs.arm_control import METRES_PER_UNIT, RADIANS_PER_UNIT, rotation_matrix
from specpolicy_envs.expert import Expert, Observation

REACH = 2.0  # metres, in every direction; rows of a matrix may be as long, as only their directions count
LOW = np.array([-REACH] * 9 + [-1.0], np.float32)
HIGH = -LOW
# Of the noise on executed actions: what a unit of it is in a change of pose, see `METRES_PER_UNIT`.
NOISE_SCALE = np.array([METRES_PER_UNIT] * 3 + [RADIANS_PER_UNIT] * 6 + [1.0])


def pose_of(observation: Observation, gripper: float = 0.0) -> np.ndarray:
    """Return the action (10,) that keeps the gripper where it is."""
    rotation = rotation_matrix(observation["robot0_eef_quat"])
    return np.concatenate([observation["robot0_eef_pos"], rotation[:2].ravel(), [gripper]]).astype(np.float64)


def pose_after(observation: Observation, change: np.ndarray) -> np.ndarray:
    """Return the pose (10,) that a change (7,) in the units of OSC_POSE leads to."""
    position = observation["robot0_eef_pos"] + METRES_PER_UNIT * change[:3]
    rotation = _rotation_of(RADIANS_PER_UNIT * change[3:6]) @ rotation_matrix(observation["robot0_eef_quat"])
    return np.concatenate([position, rotation[:2].ravel(), change[6:]])


def change_to(observation: Observation, pose: np.ndarray) -> np.ndarray:
    """Return the change (7,) that leads to a pose (10,), at most one unit in every direction: the nearer end of the
    way to a pose that is farther."""
    step = (pose[:3] - observation["robot0_eef_pos"]) / METRES_PER_UNIT
    turn = _vector_of(_matrix_of(pose[3:9]) @ rotation_matrix(observation["robot0_eef_quat"]).T) / RADIANS_PER_UNIT
    step, turn = (part / max(1.0, float(np.abs(part).max())) for part in (step, turn))
    return np.concatenate([step, turn, pose[9:]])


class PoseExpert:
    """An expert whose changes are given as the poses that they lead to."""

    def __init__(self, expert: Expert) -> None:
        self._expert = expert

    def reset(self, seed: int) -> None:
        """See `Expert.reset`."""
        self._expert.reset(seed)

    def act(self, observation: Observation) -> np.ndarray:
        """See `Expert.act`."""
        return pose_after(observation, np.asarray(self._expert.act(observation), np.float64))


def _matrix_of(six: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) whose first rows are nearest to `six` by Gram-Schmidt; a network's rows are neither
    of length one nor orthogonal."""
    first = six[:3] / max(float(np.linalg.norm(six[:3])), 1e-6)
    second = six[3:] - (first @ six[3:]) * first
    second = second / max(float(np.linalg.norm(second)), 1e-6)
    return np.stack([first, second, np.cross(first, second)])


def _rotation_of(vector: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) about the axis of `vector` (3,) by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-9)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _vector_of(rotation: np.ndarray) -> np.ndarray:
    """Return axis times angle (3,) of a rotation by less than half a turn."""
    twice_sine = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine, cosine = float(np.linalg.norm(twice_sine)) / 2, (float(np.trace(rotation)) - 1) / 2
    return twice_sine * (0.5 if sine < 1e-9 else np.arctan2(sine, cosine) / (2 * sine))
