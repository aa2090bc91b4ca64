"""A policy as a ROS 2 node: joint states and camera images in, position commands out, one in every control period.

    ros2 run ... or: python examples/ros2_node.py --ros-args -p policy:=checkpoints/mine -p joints:="[j1,j2,j3]" \\
        -p cameras:="['front:/camera/image_raw']" -p commands:=/forward_position_controller/commands -p hz:=30.0

- Subscribes sensor_msgs/JointState and sensor_msgs/Image with the QoS of sensor data (best effort, the newest 5): it
  hears reliable and best-effort publishers alike, and an old message never delays a new one.
- Publishes std_msgs/Float64MultiArray, reliable, depth 1, to ros2_control's ForwardCommandController.
- The control loop runs in the main thread and keeps its own time; ROS spins in another one. Ctrl-C, SIGTERM and all
  that docs/control.md lists command the joints to stay where they are before the node ends.

The policy observes `observation.state` (the joints in this order, in radians) and `observation.images.<camera>`.
This file needs ROS 2 (rclpy); its test runs it with a stand-in of rclpy, not with ROS.
"""

import sys
import threading
import time

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

import specpolicy
from specpolicy.control import Controller, Limits, timing_report

OPTIONS = {"hz": 30.0, "sampler": "", "worker": "process", "rate": 1.0, "seconds": 0.0}
CHANNELS = {"rgb8": (3, 1), "bgr8": (3, -1)}  # encoding: (bytes of a pixel, order)


class RosRobot:
    """The newest messages as observations, actions as commands: the three methods of a robot, and its position."""

    def __init__(self, node):
        def told(name, default):
            return node.declare_parameter(name, default).value

        self.node, self.joints = node, list(told("joints", [""]))
        self.oldest = told("max_age", 0.2)  # seconds; with an older message the robot is stopped
        self.newest = {}  # {name: (time of arrival, message)}; replaced as a whole, so no lock is needed
        self.lacking = ""  # what the newest message without all joints lacked
        topic = told("states", "/joint_states")
        node.create_subscription(JointState, topic, self.hear_joints, qos_profile_sensor_data)
        cameras = [entry for entry in told("cameras", [""]) if entry]
        if wrong := [entry for entry in cameras if ":" not in entry]:
            raise specpolicy.SpecpolicyError(f"cameras: '{wrong[0]}' names no topic: give front:/camera/image_raw")
        self.cameras = dict(entry.split(":", 1) for entry in cameras)
        for name, topic in self.cameras.items():
            node.create_subscription(Image, topic, self.hear(name), qos_profile_sensor_data)
        reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        topic = told("commands", "/forward_position_controller/commands")
        self.commands = node.create_publisher(Float64MultiArray, topic, reliable)

    def hear(self, name):
        return lambda message: self.newest.update({name: (time.monotonic(), message)})

    def hear_joints(self, message):
        """Keep positions of all joints; a message of some joints, such as a gripper's own, is left out."""
        angles = dict(zip(message.name, message.position, strict=False))
        if missing := [name for name in self.joints if name not in angles]:
            self.lacking = f" with a position of '{missing[0]}': there are {', '.join(angles) or 'none'}"
        else:
            self.hear("states")(np.array([angles[name] for name in self.joints]))

    def wait(self, seconds=10.0):
        """Wait until every topic has been heard; say which has not."""
        end = time.monotonic() + seconds
        while missing := [name for name in ("states", *self.cameras) if name not in self.newest]:
            if time.monotonic() > end:
                what = self.lacking if missing[0] == "states" else ""
                raise specpolicy.SpecpolicyError(f"no message on the topic of {missing[0]} for {seconds:g} s{what}")
            time.sleep(0.01)

    def fresh(self, name):
        arrived, message = self.newest[name]
        if (age := time.monotonic() - arrived) > self.oldest:
            raise specpolicy.SpecpolicyError(f"the newest message of {name} is {age:.2f} s old (max_age)")
        return message

    def position(self):
        return self.fresh("states")

    def observe(self):
        frames = {f"observation.images.{name}": picture(self.fresh(name)) for name in self.cameras}
        return {"observation.state": self.position().astype(np.float32), **frames}

    def act(self, action):
        self.commands.publish(Float64MultiArray(data=[float(value) for value in action]))

    def stop(self):
        if "states" in self.newest:  # hold the last measured position, however old
            self.act(self.newest["states"][1])
            self.commands.wait_for_all_acked(Duration(seconds=1))  # the node may end next, and the message with it


def picture(message):
    """Return a ROS image as (height, width, 3) bytes, red first; rows may be padded."""
    if message.encoding not in CHANNELS:
        raise specpolicy.SpecpolicyError(f"an image is {message.encoding}: use {' or '.join(CHANNELS)}")
    depth, order = CHANNELS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, : depth * message.width]
    return rows.reshape(message.height, message.width, depth)[..., ::order]


def main(arguments=None):
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)  # signals are the control loop's
    try:
        control(Node("specpolicy"))
    finally:
        rclpy.try_shutdown()


def control(node):
    executor = SingleThreadedExecutor()
    spinning = threading.Thread(target=executor.spin, name="ros", daemon=True)
    try:
        policy = specpolicy.load_policy(node.declare_parameter("policy", "checkpoints/mine").value)
        options = {name: node.declare_parameter(name, default).value for name, default in OPTIONS.items()}
        robot = RosRobot(node)
        if robot.joints == [""] or len(robot.joints) != policy.action_dim:
            told = ", ".join(robot.joints) or "none"
            raise specpolicy.SpecpolicyError(
                f"joints: {told}; the policy moves {policy.action_dim}: name each, in its order"
            )
        executor.add_node(node)
        spinning.start()
        robot.wait()
        limits = Limits(rate=options["rate"])  # radians per second, from where the robot stands
        sampler, worker = options["sampler"] or None, options["worker"]
        controller = Controller(policy, robot, hz=options["hz"], sampler=sampler, worker=worker, limits=limits)
        log = controller.run(seconds=options["seconds"] or None, until=lambda: not rclpy.ok())
        node.get_logger().info(timing_report(log.summary()))
    finally:
        executor.shutdown()
        if spinning.ident is not None:
            spinning.join()  # else it spins a node that is gone
        node.destroy_node()


if __name__ == "__main__":  # inference runs in another process, which imports this file
    try:
        main()
    except specpolicy.SpecpolicyError as error:
        sys.exit(f"ros2_node: {error}")
