"""PickPlaceCan: carry the can from one bin into a compartment of the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from specpolicy_envs.arm_control import CLOSED, OPEN, funnel, gripper_opening, hand_yaw, move, rotation_matrix, wrap
from specpolicy_envs.expert import Observation
from specpolicy_envs.robosuite_task import RobosuiteTask


class PickPlaceCan(RobosuiteTask):
    """robosuite's PickPlaceCan: success when the released can is in its compartment."""

    robosuite_name = "PickPlaceCan"
    object_size = 14
    object_quaternions = (3, 10)

    def __init__(self, max_seconds: float = 20.0, **kwargs: Any) -> None:
        super().__init__(max_seconds, **kwargs)


class PickPlaceCanExpert:
    """Grasps the can from above, lifts it over the bins' walls, carries it, and releases it just above the floor.

    Each phase follows from the observation, so after a missed grasp or a dropped can it starts over by itself.
    """

    # The compartment is 0.10 to 0.295 m by 0.28 to 0.525 m; the arm reaches its near half upright.
    goal = np.array([0.18, 0.38])
    carry_height = 1.03
    release_height = 0.95

    def reset(self, seed: int) -> None:
        """Do nothing: the expert has no memory and makes no random choice."""

    def act(self, observation: Observation) -> np.ndarray:
        hand = observation["robot0_eef_pos"].astype(np.float64)
        can = observation["object"][7:10].astype(np.float64)
        axis = rotation_matrix(observation["object"][10:14])[:, 2]
        standing = abs(axis[2]) > 0.7
        # Across the robot, as the arm starts; across the can where it is on its side.
        finger_yaw = np.pi / 2 if standing else np.arctan2(axis[1], axis[0]) + np.pi / 2
        yaw_error = wrap(finger_yaw - hand_yaw(observation), np.pi)

        offset = hand - can
        sideways = float(np.hypot(offset[0], offset[1]))
        opening = gripper_opening(observation)
        to_goal = self.goal - can[:2]
        distance = float(np.abs(to_goal).max())

        around = sideways < 0.03 and abs(offset[2]) < 0.035
        if distance < 0.07 and can[2] < self.release_height:
            height = 1.0 if opening > 0.055 else 0.94  # up and away once the can is free
            return move(observation, [*(hand[:2] + to_goal), height], yaw_error, OPEN, gain=2.0)
        if around and 0.03 < opening < 0.065:
            target = hand.copy()
            # Sideways only once the can is above the walls; down only once it is above the goal.
            freedom = np.clip((can[2] - 0.93) / 0.05, 0.0, 1.0)
            target[:2] += freedom * to_goal
            target[2] += (self.release_height - 0.03 if distance < 0.05 else self.carry_height) - can[2]
            return move(observation, target, yaw_error, CLOSED, gain=2.0)
        if around and (opening < 0.075 or (sideways < 0.01 and abs(offset[2]) < 0.015)):
            return move(observation, can, yaw_error, CLOSED)
        return move(observation, funnel(hand, can, hover=0.1), yaw_error, OPEN, gain=2.0)
