"""A tiny environment and its expert, so that collection is tested without a simulator."""

import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Reach(gymnasium.Env):
    """Bring a point (2,) to a goal in the plane. The action is its velocity."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    action_noise_scale = 0.5

    def __init__(self, pause=0.0, max_steps=30):
        self.pause, self.max_steps = pause, max_steps
        self.observation_space = spaces.Dict({key: spaces.Box(-2, 2, (2,), np.float32) for key in ("position", "goal")})
        self.action_space = spaces.Box(-0.2, 0.2, (2,), np.float32)
        self.executed = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        self.steps = 0
        return self._observe(), {"is_success": False}

    def step(self, action):
        time.sleep(self.pause)
        self.executed.append(np.array(action))
        self.position = self.position + action
        self.steps += 1
        success = bool(np.linalg.norm(self.position - self.goal) < 0.1)
        return self._observe(), 0.0, success, self.steps >= self.max_steps, {"is_success": success}

    def get_state(self):
        return np.concatenate([self.position, self.goal])

    def _observe(self):
        return {"position": self.position.astype(np.float32), "goal": self.goal.astype(np.float32)}


class ReusingReach(Reach):
    """Fills the arrays of its observation anew at every step, as some environments do; one is a number by itself."""

    def __init__(self):
        super().__init__()
        self.observation_space["step"] = spaces.Box(0, 100, (), np.float32)
        self.seen = {key: np.zeros(box.shape, np.float32) for key, box in self.observation_space.items()}

    def _observe(self):
        for key, value in (*super()._observe().items(), ("step", self.steps)):
            self.seen[key][...] = value
        return self.seen


class ReachExpert:
    """Goes straight to the goal; gives up in a share of the episodes that its seed decides."""

    def __init__(self, failing=0.0):
        self.failing = failing

    def reset(self, seed):
        self.gives_up = np.random.default_rng(seed).random() < self.failing

    def act(self, observation):
        if self.gives_up:
            return np.zeros(2)
        return np.clip(observation["goal"] - observation["position"], -0.2, 0.2)


def make_expert(task_id, seed):
    return ReachExpert()


def make_clumsy_expert(task_id, seed):
    return ReachExpert(failing=0.4)


def make_hopeless_expert(task_id, seed):
    return ReachExpert(failing=1.0)


gymnasium.register("Reach-v0", entry_point=Reach)
gymnasium.register("ReusingReach-v0", entry_point=ReusingReach)
