"""Robots of LeRobot's own classes without hardware, for scripts/check_lerobot_robot.py."""

import contextlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from lerobot.motors import Motor, MotorNormMode
from lerobot.robots import Robot, RobotConfig
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

JOINTS = ("pan", "lift", "gripper", "wrist")


class Bus:
    """The part of LeRobot's bus of motors that tells how they are read."""

    def __init__(self) -> None:
        modes = {name: MotorNormMode.DEGREES for name in JOINTS} | {"gripper": MotorNormMode.RANGE_0_100}
        self.motors = {name: Motor(index, "none", mode) for index, (name, mode) in enumerate(modes.items())}
        self.is_connected = False


@RobotConfig.register_subclass("made_up_arm")
@dataclass
class MadeUpArmConfig(RobotConfig):
    """An arm of `joints` joints; it moves by `most` at once."""

    port: str = ""
    joints: int = 3
    most: float = 90.0


class MadeUpArm(Robot):
    """Moves at once where it is told."""

    config_class = MadeUpArmConfig
    name = "made_up_arm"
    made: ClassVar[list["MadeUpArm"]] = []

    def __init__(self, config: MadeUpArmConfig):
        super().__init__(config)
        self.config, self.bus = config, Bus()
        self.state = {f"{name}.pos": 0.0 for name in JOINTS[: config.joints]}
        self.on, self.sent, self.disconnects = False, [], 0
        MadeUpArm.made.append(self)

    @property
    def observation_features(self) -> dict:
        return dict.fromkeys(self.state, float)

    action_features = observation_features

    @property
    def is_connected(self) -> bool:
        return self.on

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        if self.config.port == "nowhere":
            raise ConnectionError("no such port")
        self.on = True

    is_calibrated = True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    @check_if_not_connected
    def get_observation(self) -> dict:
        return dict(self.state)

    @check_if_not_connected
    def send_action(self, action: dict) -> dict:
        done = {
            n: float(np.clip(v, self.state[n] - self.config.most, self.state[n] + self.config.most))
            for n, v in action.items()
        }
        self.state |= done
        self.sent.append(done)
        return done

    @check_if_not_connected
    def disconnect(self) -> None:
        self.on, self.disconnects = False, self.disconnects + 1


class PretendedBus(Bus):
    """The motors of LeRobot's SO-101, without the arm."""

    def __init__(self, port: str, motors: dict, calibration: dict | None = None):
        self.motors, self.is_connected, self.is_calibrated = motors, False, True
        self.positions, self.released = dict.fromkeys(motors, 10.0), None

    def connect(self) -> None:
        self.is_connected = True

    def disconnect(self, disable_torque: bool = True) -> None:
        self.is_connected, self.released = False, disable_torque

    def torque_disabled(self):
        return contextlib.nullcontext()

    def configure_motors(self) -> None:
        pass

    def write(self, *arguments: object) -> None:
        pass

    def sync_read(self, name: str, num_retry: int = 0) -> dict:
        return dict(self.positions)

    def sync_write(self, name: str, values: dict) -> None:
        self.positions |= values
