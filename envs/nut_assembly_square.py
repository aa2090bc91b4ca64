"""NutAssemblySquare: put the square nut over the square peg."""

from __future__ import annotations

from typing import Any

import numpy as np

from specpolicy_envs.arm_control import CLOSED, OPEN, UP, funnel, gripper_opening, move, wrap, yaw_of
from specpolicy_envs.expert import Observation
from specpolicy_envs.robosuite_task import RobosuiteTask


class NutAssemblySquare(RobosuiteTask):
    """robosuite's NutAssemblySquare: success when the nut is half-way down its peg.

    `object` (14,): nut relative to the gripper, position and quaternion; nut in the world, position, quaternion.
    """

    robosuite_name = "NutAssemblySquare"
    object_size = 14
    object_quaternions = (3, 10)

    def __init__(self, max_seconds: float = 20.0, **kwargs: Any) -> None:
        super().__init__(max_seconds, **kwargs)


class NutAssemblySquareExpert:
    """Grasps the nut by its handle, turns it square to the peg on the way there, lowers it over the peg.

    Each phase follows from the observation, so after a missed grasp or a dropped nut it starts over by itself.
    """

    peg = np.array([0.23, 0.1])
    peg_top = 0.95
    handle_length = 0.054  # from the nut's centre to the middle of its handle
    # Directions of the handle, seen from the peg, that the arm reaches: not away from the robot.
    final_yaws = np.array([-0.5, 0.5, 1.0]) * np.pi

    def reset(self, seed: int) -> None:
        """Do nothing: the expert has no memory and makes no random choice."""

    def act(self, observation: Observation) -> np.ndarray:
        hand = observation["robot0_eef_pos"].astype(np.float64)
        nut = observation["object"][7:10].astype(np.float64)
        nut_yaw = yaw_of(observation["object"][10:14])
        handle = nut + self.handle_length * np.array([np.cos(nut_yaw), np.sin(nut_yaw), 0.0])
        hand_yaw = yaw_of(observation["robot0_eef_quat"])
        grasp_turn = self._grasp_turn(nut_yaw, hand_yaw)

        offset = hand - handle
        sideways = float(np.hypot(offset[0], offset[1]))
        opening = gripper_opening(observation)
        around = sideways < 0.02 and abs(offset[2]) < 0.02
        if around and opening < 0.022:  # closed on nothing, or beside the handle
            return move(observation, hand + 0.1 * UP, grasp_turn, OPEN)
        if around and opening < 0.045:
            return self._carry(observation, hand, nut, nut_yaw)
        if around and (opening < 0.07 or (sideways < 0.008 and abs(offset[2]) < 0.008)):
            return move(observation, handle, grasp_turn, CLOSED)
        above = 0.05 * UP if opening < 0.06 else 0.0  # not down before the fingers are open
        return move(observation, funnel(hand, handle + above, 0.08, grasp_turn), grasp_turn, OPEN, gain=2.0)

    def _grasp_turn(self, nut_yaw: float, hand_yaw: float) -> float:
        """Return the turn that lays the fingers along the handle's sides, kept within the reach of the wrist."""
        candidates = [wrap(nut_yaw), wrap(nut_yaw + np.pi)]
        reachable = [yaw for yaw in candidates if abs(yaw) < 2.0]
        return min((yaw - hand_yaw for yaw in reachable), key=abs)

    def _carry(self, observation: Observation, hand: np.ndarray, nut: np.ndarray, nut_yaw: float) -> np.ndarray:
        turn = min((wrap(yaw - nut_yaw) for yaw in self.final_yaws), key=abs)
        to_peg = self.peg - nut[:2]
        distance = float(np.hypot(*to_peg))
        on_peg = nut[2] < self.peg_top
        tolerance = 0.012 if on_peg else 0.005
        if distance < tolerance and abs(turn) < (0.15 if on_peg else 0.06):
            return move(observation, [*(hand[:2] + to_peg), hand[2] - 0.08], turn, CLOSED, gain=1.5)
        # The hand's place once its nut is turned: the nut swings about the hand.
        arm = nut[:2] - hand[:2]
        swung = np.array([arm[0] * np.cos(turn) - arm[1] * np.sin(turn), arm[0] * np.sin(turn) + arm[1] * np.cos(turn)])
        aside = self.peg - swung - hand[:2]
        height = self.peg_top + (0.03 if distance < 0.02 else 0.05)
        clear = nut[2] - (self.peg_top + 0.015 if distance < 0.12 else 0.85)
        freedom = float(np.clip(clear / 0.02, 0.0, 1.0))
        target = np.array([*(hand[:2] + freedom * aside), hand[2] + height - nut[2]])
        return move(observation, target, turn, CLOSED, gain=2.0)
