"""Lift: pick the cube up."""

from __future__ import annotations

from typing import Any

import numpy as np

from specpolicy_envs.arm_control import CLOSED, OPEN, UP, gripper_opening, hand_yaw, move, wrap, yaw_of
from specpolicy_envs.expert import Observation
from specpolicy_envs.robosuite_task import RobosuiteTask


class Lift(RobosuiteTask):
    """robosuite's Lift: success when the cube is 4 cm above the table.

    `object` (10,): position and quaternion of the cube in the world, vector from the gripper to the cube.
    """

    robosuite_name = "Lift"
    object_size = 10
    object_quaternions = ()  # the cube's quaternion is its free joint's, whose sign never flips

    def __init__(self, max_seconds: float = 10.0, **kwargs: Any) -> None:
        super().__init__(max_seconds, **kwargs)

    @classmethod
    def _object_from(cls, object_: np.ndarray, position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
        return np.concatenate([object_[:7], object_[:3] - position])


class LiftExpert:
    """Goes above the cube, down, closes, lifts.

    Each phase follows from the observation, so after a missed grasp it starts over by itself.
    """

    hover = 0.06
    reach = 0.015

    def reset(self, seed: int) -> None:
        """Do nothing: the expert has no memory and makes no random choice."""

    def act(self, observation: Observation) -> np.ndarray:
        return self.grasp_and_lift(observation, np.zeros(2))

    def grasp_and_lift(self, observation: Observation, velocity: np.ndarray) -> np.ndarray:
        """Return the action (7,) for a cube that moves at `velocity` (2,), in m/s."""
        hand = observation["robot0_eef_pos"].astype(np.float64)
        cube = observation["object"][:3].astype(np.float64)
        # Parallel to a pair of the cube's faces, whichever is nearest.
        yaw_error = wrap(yaw_of(observation["object"][3:7]) - hand_yaw(observation), np.pi / 2)
        offset = hand - cube
        sideways = float(np.hypot(offset[0], offset[1]))
        opening = gripper_opening(observation)

        closing = opening < 0.07 and sideways < 0.02 and abs(offset[2]) < 0.02
        if closing and opening < 0.05:
            return move(observation, hand + 0.1 * UP, yaw_error, CLOSED)
        if closing or (sideways < 0.01 and abs(offset[2]) < 0.01):
            return move(observation, cube, yaw_error, CLOSED, velocity=velocity)
        # A funnel: the further to the side, the higher.
        height = min(self.hover, max(0.0, 2.0 * (sideways - self.reach) + 0.3 * abs(yaw_error) * self.hover))
        return move(observation, cube + height * UP, yaw_error, OPEN, gain=2.0, velocity=velocity)
