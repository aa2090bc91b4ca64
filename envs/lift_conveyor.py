"""LiftConveyor: pick the cube up from a belt whose speed and direction change at random moments.

The belt is physical: a heavy plate under the cube. It keeps a set velocity and is put back in place after every
simulation step, so it stays where it is. It moves the cube by friction alone, so it does not carry a lifted cube.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces

from specpolicy_envs.expert import Observation
from specpolicy_envs.lift import Lift, LiftExpert
from specpolicy_envs.robosuite_task import import_robosuite

SPEED = (0.08, 0.16)  # m/s
SECONDS_BETWEEN_CHANGES = (0.3, 1.0)
AREA = np.array([[-0.12, -0.18], [0.12, 0.18]])  # the cube stays in here: the belt turns it back at the edges
BELT_THICKNESS = 0.002  # above the table


class LiftConveyor(Lift):
    """Lift from a belt that moves in the plane; success when the cube is 4 cm above the table.

    `object` (10,) as in Lift; `cube_velocity` (2,) is the cube's velocity in the table's plane in m/s.
    """

    def __init__(self, max_seconds: float = 8.0, **kwargs: Any) -> None:
        self.belt_velocity = np.zeros(2)
        self._next_change = 0.0
        super().__init__(max_seconds, **kwargs)
        self.observation_space.spaces["cube_velocity"] = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def env_args(self) -> dict[str, Any]:
        """Return what robomimic stores to make the environment again (type 2: by its Gymnasium id)."""
        return self._gymnasium_args()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.belt_velocity = np.zeros(2)
        observation, info = super().reset(seed=seed, options=options)
        self._change_belt()
        return observation, info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        if self._steps / self.control_hz >= self._next_change:
            self._change_belt()
        cube = self._simulation.sim.data.body_xpos[self._simulation.cube_body_id][:2]
        outward = np.where(cube < AREA[0], -1.0, np.where(cube > AREA[1], 1.0, 0.0))
        leaving = self.belt_velocity * outward > 0
        self.belt_velocity = np.where(leaving, -self.belt_velocity, self.belt_velocity)
        self._simulation.belt_velocity = self.belt_velocity
        return super().step(action)

    def _change_belt(self) -> None:
        angle = self.np_random.uniform(0, 2 * np.pi)
        self.belt_velocity = self.np_random.uniform(*SPEED) * np.array([np.cos(angle), np.sin(angle)])
        self._next_change = self._steps / self.control_hz + self.np_random.uniform(*SECONDS_BETWEEN_CHANGES)

    def _make_simulation(self) -> Any:
        simulation = _conveyor_class()(**self._robosuite_kwargs())
        sampler = simulation.placement_initializer
        sampler.x_range, sampler.y_range = AREA[:, 0].tolist(), AREA[:, 1].tolist()
        return simulation

    def _observation(self) -> dict[str, np.ndarray]:
        observation = super()._observation()
        velocity = self._simulation.sim.data.get_joint_qvel(self._simulation.cube.joints[0])
        observation["cube_velocity"] = np.asarray(velocity[:2], dtype=np.float32)
        return observation


@cache
def _conveyor_class() -> Any:
    """Return robosuite's Lift with a belt on its table. It is made on demand, so the expert needs no simulator."""
    import_robosuite()
    from robosuite.environments.manipulation.lift import Lift as RobosuiteLift

    class RobosuiteLiftConveyor(RobosuiteLift):
        belt_velocity = np.zeros(2)

        def _load_model(self) -> None:
            super()._load_model()
            top = self.table_offset[2] + BELT_THICKNESS
            belt = ElementTree.SubElement(self.model.worldbody, "body", name="belt", pos=f"0 0 {top - 0.01}")
            ElementTree.SubElement(belt, "inertial", pos="0 0 0", mass="100", diaginertia="1 1 1")
            for axis, direction in (("x", "1 0 0"), ("y", "0 1 0")):
                ElementTree.SubElement(belt, "joint", name=f"belt_{axis}", type="slide", axis=direction)
            ElementTree.SubElement(
                belt,
                "geom",
                name="belt",
                type="box",
                size="0.3 0.35 0.01",  # clear of the robot's pedestal
                friction=" ".join(str(value) for value in self.table_friction),
                rgba="0.25 0.27 0.3 1",
                group="1",
            )
            ElementTree.SubElement(self.model.contact, "exclude", body1="belt", body2="table")

        def _pre_action(self, action: np.ndarray, policy_step: bool = False) -> None:
            super()._pre_action(action, policy_step)
            for joint, speed in zip(("belt_x", "belt_y"), self.belt_velocity, strict=True):
                self.sim.data.set_joint_qpos(joint, 0.0)
                self.sim.data.set_joint_qvel(joint, speed)

    return RobosuiteLiftConveyor


class LiftConveyorExpert(LiftExpert):
    """Lift's expert, moving along with the cube while it goes down and closes."""

    def act(self, observation: Observation) -> np.ndarray:
        return self.grasp_and_lift(observation, observation["cube_velocity"])
