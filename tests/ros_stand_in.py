"""A stand-in of rclpy with a world behind it: joints that are at once where they are commanded, and a camera."""

import sys
import threading
import time
import types
from dataclasses import dataclass, field
from types import SimpleNamespace


@dataclass
class JointState:
    name: list = field(default_factory=list)
    position: list = field(default_factory=list)


@dataclass
class Image:
    height: int = 0
    width: int = 0
    step: int = 0
    encoding: str = ""
    data: bytes = b""


@dataclass
class Float64MultiArray:
    data: list = field(default_factory=list)


class World:
    """Publishes its state every 5 ms while an executor spins.

    Args:
        parameters: of the node.
        silent_after: commands after which no more joint states come; None: never.
    """

    def __init__(self, parameters, silent_after=None):
        self.parameters, self.silent_after = parameters, silent_after
        self.joints = {"j2": 0.2, "j1": 0.1, "j3": 0.3}  # ROS promises no order
        self.encoding = "bgr8"
        self.heard, self.published, self.acknowledged, self.events = {}, [], 0, []
        self.ended = threading.Event()

    def spin(self):
        while not self.ended.wait(0.005):
            if self.silent_after is None or len(self.published) < self.silent_after:
                joints = dict(self.joints)
                self.say(JointState, JointState([*joints], [*joints.values()]))
                self.said = [joints[name] for name in ("j1", "j2", "j3")]
                self.say(JointState, JointState(["gripper"], [0.0]))  # another publisher on the same topic
            rows = bytes([1, 2, 3] * 4 + [0] * 4) * 2  # padded to 16 bytes
            self.say(Image, Image(2, 4, 16, self.encoding, rows))
        time.sleep(0.05)  # a callback that is under way when the executor is shut down
        self.events.append("spun")

    def say(self, kind, message):
        for heard, topic, callback, qos in list(self.heard.values()):
            assert qos == "sensor data" and topic
            if heard is kind:
                callback(message)

    def publish(self, message):
        assert isinstance(message, Float64MultiArray) and all(type(value) is float for value in message.data)
        self.published.append(message.data)
        self.joints.update(zip(("j1", "j2", "j3"), message.data, strict=True))

    def acknowledge(self, timeout):
        self.acknowledged += 1
        return True

    def install(self, monkeypatch):
        """Put the stand-in where ROS would be."""
        world = self

        class Node:
            def __init__(self, name):
                world.events.append(f"node {name}")

            def declare_parameter(self, name, default):
                return SimpleNamespace(value=world.parameters.get(name, default))

            def create_subscription(self, kind, topic, callback, qos):
                world.heard[topic] = kind, topic, callback, qos

            def create_publisher(self, kind, topic, qos):
                assert kind is Float64MultiArray and (qos.depth, qos.reliability) == (1, "reliable")
                world.topic = topic
                return SimpleNamespace(publish=world.publish, wait_for_all_acked=world.acknowledge)

            def get_logger(self):
                return SimpleNamespace(info=print)

            def destroy_node(self):
                world.events.append("node destroyed")

        class Executor:
            def add_node(self, node):
                self.node = node

            def spin(self):
                world.spin()

            def shutdown(self):
                world.ended.set()

        def init(args, signal_handler_options):
            assert signal_handler_options == "none"

        modules = {
            "rclpy": {"init": init, "ok": lambda: True, "try_shutdown": lambda: world.events.append("shut down")},
            "rclpy.duration": {"Duration": lambda seconds: seconds},
            "rclpy.executors": {"SingleThreadedExecutor": Executor},
            "rclpy.node": {"Node": Node},
            "rclpy.qos": {
                "QoSProfile": lambda depth, reliability: SimpleNamespace(depth=depth, reliability=reliability),
                "ReliabilityPolicy": SimpleNamespace(RELIABLE="reliable"),
                "qos_profile_sensor_data": "sensor data",
            },
            "rclpy.signals": {"SignalHandlerOptions": SimpleNamespace(NO="none")},
            "sensor_msgs": {},
            "sensor_msgs.msg": {"JointState": JointState, "Image": Image},
            "std_msgs": {},
            "std_msgs.msg": {"Float64MultiArray": Float64MultiArray},
        }
        for name, content in modules.items():
            module = types.ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)
