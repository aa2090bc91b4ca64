"""Any Gymnasium environment as a robot, on the wall clock or in simulated time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import gymnasium


class GymRobot:
    """An environment that takes one step per control period.

    On the wall clock its time goes on by itself: in a period without an action it repeats the last one, as a robot
    keeps its last set-point. In simulated time it stands still between two actions. After `stop` nothing moves it until
    it is observed and acted on again. After the end of an episode nothing moves it at all.

    Args:
        env: its observation is a Dict of arrays or an array (seen as `{"state": ...}`), its action space a Box.
            `specpolicy.tasks.make_task_env` makes one for a task; for others `is_success` is read from `info` if
            present.
        seed: of the reset.
        hz: control periods per second on the wall clock; None for simulated time.
        hold: action for a period without one: maps the last action to it. None repeats the last action.
        now: the time source; for tests.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        seed: int | None = None,
        hz: float | None = None,
        hold: Callable[[np.ndarray], np.ndarray] | None = None,
        now: Callable[[], float] = time.perf_counter,
    ):
        if hz is not None and not hz > 0:
            raise SpecpolicyError(f"hz={hz}: expected a positive number of control steps per second")
        self.env = env
        self._hz, self._now = hz, now
        self._hold = hold or (lambda action: action)
        self._start: float | None = None
        self._last: np.ndarray | None = None
        self._space: Any = env.action_space
        observation, info = env.reset(seed=seed)
        self._observation = _as_mapping(observation)
        self.success = bool(info.get("is_success", False))
        self.done = self.success
        self.stopped = False
        self.steps = 0
        self.held_steps = 0  # of them: steps without an action
        self.total_reward = 0.0

    def observe(self) -> Mapping[str, np.ndarray]:
        """Return the world's present observation. The first one after `stop` begins another run."""
        if self.stopped:
            self.stopped, self._start = False, None
        self._catch_up()
        return self._observation

    def act(self, action: np.ndarray) -> None:
        """Take the step of this period with `action`, clipped to the action space."""
        action = np.asarray(action)
        if action.shape != self._space.shape:
            raise SpecpolicyError(f"an action of shape {action.shape}: the robot takes {self._space.shape}")
        if self._start is None:
            self._start = self._now() - (self.steps / self._hz if self._hz else 0.0)
        self._catch_up()
        self._last = action
        self._step(action)

    def position(self) -> np.ndarray | None:
        """Return the action that keeps the world as it is: the last one, or before the first one the environment's own
        `resting_action()`. None if it has no such method, or if a wrapper gives its actions another meaning."""
        if self._last is not None:
            return self._last
        base: Any = self.env.unwrapped
        told = getattr(base, "resting_action", None)
        return told() if callable(told) and base.action_space == self._space else None

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest action that the environment executes."""
        return self._space.low, self._space.high

    def stop(self) -> None:
        """Leave the environment as it is."""
        self.stopped = True

    def _catch_up(self) -> None:
        """Take the steps of the periods that have passed without an action."""
        if self._hz is None or self._start is None or self._last is None:
            return
        # Round to the nearest, because the moments of two calls vary by a part of a period.
        passed = round((self._now() - self._start) * self._hz)
        while self.steps < passed and not (self.done or self.stopped):
            self.held_steps += 1
            self._last = self._hold(self._last)
            self._step(self._last)

    def _step(self, action: np.ndarray) -> None:
        if self.done or self.stopped:
            return
        clipped = np.clip(action, self._space.low, self._space.high).astype(self._space.dtype)
        observation, reward, terminated, truncated, info = self.env.step(clipped)
        self._observation = _as_mapping(observation)
        self.success = bool(info.get("is_success", False))
        self.done = bool(terminated or truncated or self.success)
        self.steps += 1
        self.total_reward += float(reward)


def _as_mapping(observation: Any) -> Mapping[str, np.ndarray]:
    return observation if isinstance(observation, Mapping) else {"state": np.asarray(observation)}
