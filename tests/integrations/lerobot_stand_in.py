"""A stand-in of LeRobot's robots, and of the parts of its package that make them; scripts/check_lerobot_robot.py runs
the same against LeRobot itself."""

import sys
import types
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace

import numpy as np

from specpolicy.control import Chunk, Controller
from specpolicy.integrations.lerobot import RobotAdapter


class Mode(StrEnum):
    RANGE_0_100 = "range_0_100"
    RANGE_M100_100 = "range_m100_100"
    DEGREES = "degrees"


class DeviceNotConnectedError(ConnectionError):
    pass


JOINTS = {"pan": Mode.DEGREES, "lift": Mode.DEGREES, "gripper": Mode.RANGE_0_100}


class Bus:
    def __init__(self, modes):
        self.motors = {name: SimpleNamespace(norm_mode=mode) for name, mode in modes.items()}
        self.is_connected = False
        self.released = None

    def disconnect(self, disable_torque=True):
        self.is_connected, self.released = False, disable_torque


class Arm:
    """Three joints, a camera and, if it has wheels, two velocities; moves at once where it is told.

    Args:
        fault: "connect"; "observe" or "act" from the fourth call on; "camera": it is gone after three observations.
        size: height and width of the camera's frames.
        modes: of the joints.
        most: largest change of a joint in a step; None for any.
    """

    name = "stand_in_arm"

    def __init__(self, wheels=False, fault=None, size=(6, 8), modes=JOINTS, most=None):
        self.id, self.fault, self.size, self.most = "mine", fault, size, most
        self.bus = Bus(modes)
        self.config = SimpleNamespace(disable_torque_on_disconnect=False)
        self.state = {f"{name}.pos": 10.0 * index for index, name in enumerate(modes)}
        self.wheels = {"x.vel": 0.0, "theta.vel": 0.0} if wheels else {}
        self.is_calibrated, self.camera = True, True
        self.sent, self.observed, self.disconnects, self.connects = [], 0, 0, []

    @property
    def observation_features(self):
        return {**dict.fromkeys([*self.state, *self.wheels], float), "front": (*self.size, 3)}

    @property
    def action_features(self):
        return dict.fromkeys([*self.state, *self.wheels], float)

    @property
    def is_connected(self):
        return self.bus.is_connected and self.camera

    def connect(self, calibrate=True):
        self.connects.append(calibrate)
        self.bus.is_connected = True
        if self.fault == "connect":
            raise ConnectionError("Could not connect on port '/dev/nowhere'.\nMake sure that it is the right one.")

    def get_observation(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("Arm is not connected.")
        self.observed += 1
        if self.fault in ("observe", "camera") and self.observed > 3:
            self.camera = self.fault != "camera"
            raise RuntimeError("the camera has no frame")
        return {**self.state, **self.wheels, "front": np.full((*self.size, 3), 7, np.uint8)}

    def send_action(self, action):
        if not self.is_connected:
            raise DeviceNotConnectedError("Arm is not connected.")
        if self.fault == "act" and len(self.sent) >= 3:
            raise RuntimeError("a motor does not answer")
        done = {name: float(value) for name, value in action.items()}
        for name in self.state if self.most is not None else ():
            done[name] = float(np.clip(action[name], self.state[name] - self.most, self.state[name] + self.most))
        self.state |= {name: done[name] for name in self.state}
        self.wheels |= {name: done[name] for name in self.wheels}
        self.sent.append(done)
        return {**done, "action": np.array([*done.values()])}  # as LeKiwiClient, which has all numbers there once more

    def disconnect(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("Arm is not connected.")
        self.disconnects += 1
        self.bus.disconnect(self.config.disable_torque_on_disconnect)


class Arms:
    """Two arms as one robot, whose features begin with `left_` and `right_`."""

    name = "stand_in_arms"

    def __init__(self, left, right):
        self.left_arm, self.right_arm = left, right

    def _both(self, of):
        return {f"{side}_{name}": value for side in ("left", "right") for name, value in of(side).items()}

    @property
    def observation_features(self):
        return self._both(lambda side: getattr(self, f"{side}_arm").observation_features)

    @property
    def action_features(self):
        return self._both(lambda side: getattr(self, f"{side}_arm").action_features)

    @property
    def is_connected(self):
        return self.left_arm.is_connected and self.right_arm.is_connected

    def connect(self, calibrate=True):
        self.left_arm.connect(calibrate)
        self.right_arm.connect(calibrate)

    def get_observation(self):
        return self._both(lambda side: getattr(self, f"{side}_arm").get_observation())

    def send_action(self, action):
        def sent(side):
            own = {name: value for name, value in action.items() if name.startswith(f"{side}_")}
            return getattr(self, f"{side}_arm").send_action({k.removeprefix(f"{side}_"): v for k, v in own.items()})

        return self._both(sent)

    def disconnect(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("Arms are not connected.")
        self.left_arm.disconnect()
        self.right_arm.disconnect()


@dataclass
class ArmConfig:
    """Fields as those of LeRobot's own configurations."""

    port: str
    id: str | None = None
    max_relative_target: float | None = None
    cameras: dict = field(default_factory=dict)


class Registry:
    made: list

    @classmethod
    def get_known_choices(cls):
        return {"stand_in_arm": ArmConfig}


def install(monkeypatch, **options):
    """Put the stand-in where LeRobot would be; return the list of the robots that it makes."""
    made = []

    def decode(registry, settings):
        kind = registry.get_known_choices()[settings["type"]]
        return kind(**{name: value for name, value in settings.items() if name != "type"})

    def make_robot_from_config(config):
        made.append(Arm(most=config.max_relative_target, **options))
        made[-1].config.port = config.port
        return made[-1]

    def module(name, **content):
        found = types.ModuleType(name)
        found.__path__ = []
        found.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, found)

    module("draccus", decode=decode)
    module("lerobot")
    module("lerobot.robots", RobotConfig=Registry, make_robot_from_config=make_robot_from_config)
    module("lerobot.cameras")
    module("lerobot.utils")
    module("lerobot.utils.import_utils", register_third_party_plugins=lambda: None)
    return made


class Steady:
    """Plans one and the same action for ever."""

    n_obs_steps, n_action_steps = 1, 4

    def __init__(self, action, fault=None):
        self.action, self.fault, self.plans = np.asarray(action, float), fault, 0

    def reset(self, seed):
        self.plans = 0

    def plan(self, history):
        self.plans += 1
        if self.fault and self.plans > 3:
            raise ZeroDivisionError("divided by zero")
        return Chunk(np.tile(self.action, (8, 1)))


def run(adapter, planner, seconds=0.3, **options):
    patient = {"worker": "thread", "warm_up": 1, "lead": 1, "watchdog": 60.0, "inference_timeout": 60.0}
    return Controller(planner, adapter, hz=50, **{**patient, **options}).run(seconds=seconds)


def connected(*arguments, **options):
    """An adapter of a connected stand-in."""
    arm = Arm(**{name: options.pop(name) for name in ("wheels", "fault", "size", "most", "modes") if name in options})
    return RobotAdapter(arm, *arguments, **options).connect(), arm
