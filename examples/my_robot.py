"""Your robot under real-time control: python examples/my_robot.py [CHECKPOINT]

The robot needs three methods. This one is a cart in the plane, simulated in one line; replace it by your driver's
calls. A hand-written planner moves it, or the policy in CHECKPOINT if that was trained on such a cart.
"""

import sys

import numpy as np

import specpolicy
from specpolicy.control import Chunk, Controller, Limits, timing_report

HZ = 20
TARGET = np.array([0.3, -0.2, 0.0])


class Cart:
    position = np.zeros(2)

    def observe(self):
        return {"position": self.position, "object": TARGET}

    def act(self, action):  # a velocity in m/s, kept for a control period
        self.position = self.position + action / HZ

    def stop(self):
        print(f"stopped at {self.position.round(3)}")


class GoToTarget:
    n_obs_steps, n_action_steps = 1, 4  # frames that a plan is made from; actions of it to execute before the next plan

    def reset(self, seed):
        pass

    def plan(self, history):
        way = history["object"][-1, :2] - history["position"][-1]
        return Chunk(2 * way * 0.8 ** np.arange(1, 13)[:, None])  # twelve control steps, slower and slower


if __name__ == "__main__":  # inference runs in another process, which imports this file
    policy = specpolicy.load_policy(sys.argv[1]) if sys.argv[1:] else GoToTarget()
    limits = Limits(low=-0.5, high=0.5, rate=2.0)  # m/s, and m/s per second
    controller = Controller(policy, Cart(), hz=HZ, sampler="ddim", limits=limits, watchdog=1.0)
    log = controller.run(seconds=3, start=np.zeros(2))  # it stands still: the first velocity counts from there
    print(timing_report(log.summary()))
