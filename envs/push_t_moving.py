"""Push-T in a world that does not wait: the goal outline drifts, and the T is knocked now and then.

Half a second makes an observation wrong by a good part of the tolerance of success, so acting late costs.
"""

from typing import ClassVar

import numpy as np

from specpolicy_envs.push_t import PushT
from specpolicy_envs.push_t_expert import PushTExpert as PushTMovingExpert

__all__ = ["PushTMoving", "PushTMovingExpert"]

GOAL_REACH = 0.08  # the goal's centre stays within this of the middle on both axes, metres
GOAL_YAW = np.pi / 4  # its yaw stays near that of the still task,
YAW_REACH = 0.5  # within this, radians
DRIFT_SPEED = (0.015, 0.03)  # metres per second
DRIFT_TURN = 0.2  # at most, radians per second
DRIFT_SECONDS = 3.0  # mean time between changes of the drift
DRIFT_LAG = 0.4  # seconds in which the drift follows about two thirds of a change
KNOCK_SECONDS = 4.0  # mean time between knocks
KNOCK_STEPS = 2  # control steps that a knock lasts
KNOCK_SLIDE = (0.015, 0.035)  # how far a knock moves the T, metres
KNOCK_TURN = 0.35  # at most, radians


class PushTMoving(PushT):
    """`PushT` with a goal that drifts and turns slowly and smoothly, changing its course at random moments, and with a
    T that is knocked at random moments. The stream that `reset(seed=)` seeds determines all of it. It succeeds, and
    ends, as soon as the coverage reaches 0.90; `info["max_coverage"]` is the best coverage so far."""

    env_id: ClassVar[str] = "specpolicy/PushTMoving-v0"
    default_max_seconds: ClassVar[float] = 30.0
    _goal: np.ndarray  # (3,) pose

    def _draw_goal(self) -> np.ndarray:
        self._knock_left = 0
        self._velocity = self._wanted_velocity = np.zeros(3)
        offset = self.np_random.uniform(-YAW_REACH, YAW_REACH)
        goal = np.array([*self.np_random.uniform(-GOAL_REACH, GOAL_REACH, 2), GOAL_YAW + offset])
        self._change_drift(goal)
        self._velocity = self._wanted_velocity
        return goal

    def _disturb(self) -> None:
        self._drift()
        self._knock()

    def _drift(self) -> None:
        seconds = 1.0 / self.control_hz
        ahead = self._goal + 2 * DRIFT_LAG * self._velocity - [0.0, 0.0, GOAL_YAW]
        leaving = (np.abs(ahead) > [GOAL_REACH, GOAL_REACH, YAW_REACH]).any()
        if leaving or self.np_random.random() < seconds / DRIFT_SECONDS:
            self._change_drift(self._goal)
        self._velocity = self._velocity + seconds / DRIFT_LAG * (self._wanted_velocity - self._velocity)
        self._goal = self._goal + seconds * self._velocity
        self._show_goal()

    def _change_drift(self, goal: np.ndarray) -> None:
        """Head for a point well inside at a new speed, turning at a new rate."""
        way = self.np_random.uniform(-0.7 * GOAL_REACH, 0.7 * GOAL_REACH, 2) - goal[:2]
        speed = self.np_random.uniform(*DRIFT_SPEED)
        yaw = GOAL_YAW + self.np_random.uniform(-0.7, 0.7) * YAW_REACH
        turn = self.np_random.uniform(0.0, DRIFT_TURN) * np.sign(yaw - goal[2])
        self._wanted_velocity = np.array([*(speed * way / max(float(np.hypot(*way)), 1e-6)), turn])

    def _knock(self) -> None:
        body = self.model.body("block").id
        if self._knock_left > 0:
            self._knock_left -= 1
            if self._knock_left == 0:
                self.data.xfrc_applied[body] = 0.0
        elif self.np_random.random() < 1.0 / (self.control_hz * KNOCK_SECONDS):
            angle, slide = self.np_random.uniform(-np.pi, np.pi), self.np_random.uniform(*KNOCK_SLIDE)
            turn = self.np_random.uniform(-KNOCK_TURN, KNOCK_TURN)
            # With so much damping a force moves the T at force / damping for as long as it acts.
            speeds = np.array([slide * np.cos(angle), slide * np.sin(angle), turn]) * self.control_hz / KNOCK_STEPS
            forces = speeds * self.model.dof_damping[:3]
            self.data.xfrc_applied[body] = [forces[0], forces[1], 0.0, 0.0, 0.0, forces[2]]
            self._knock_left = KNOCK_STEPS
