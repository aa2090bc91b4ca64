"""A robot here, its policy on another machine: python examples/remote_robot.py ws://192.168.0.2:8000

There, with the policy and its GPU:    specpolicy serve policy=checkpoints/lift sampler=ddim host=0.0.0.0
If the server needs a key, set SPECPOLICY_API_KEY on both machines.

The control loop runs here, beside the robot. A chunk that is late or lost on the way is a miss like any other. The
robot is made up: it observes whatever the policy needs. Put your driver's calls in its three methods.
"""

import os
import sys

import numpy as np

from specpolicy.control import Controller, timing_report
from specpolicy.serving import RemotePlanner


class Robot:
    def __init__(self, shapes):
        self.shapes, self.actions = shapes, 0

    def observe(self):
        return {key: np.zeros(shape, np.float32) for key, shape in self.shapes.items()}

    def act(self, action):
        self.actions += 1

    def stop(self):
        print(f"stopped after {self.actions} actions")


if __name__ == "__main__":  # the planner's connection has its own process, which imports this file
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # If the server goes away, hold and try for 5 s to find it again; then stop the robot. The default: stop at once.
    # It counts as gone if it closes the connection, or does not answer for 5 s: the loop has to wait longer than both.
    planner = RemotePlanner(sys.argv[1], os.environ.get("SPECPOLICY_API_KEY"), timeout=5.0, reconnect=5.0)
    print(f"{planner.metadata.more.get('policy', 'a policy')}, sampled by {planner.metadata.more.get('sampler', '?')}")
    robot = Robot(planner.metadata.observation)
    controller = Controller(planner, robot, hz=20, on_miss="continue_chunk", inference_timeout=15.0)
    print(timing_report(controller.run(seconds=3).summary()))
