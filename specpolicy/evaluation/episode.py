"""One episode in a waiting world, as a function of the environment, the planner, the clock and the seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.control.chunk import Chunk, Planner
from specpolicy.control.clock import Clock
from specpolicy.errors import SpecpolicyError
from specpolicy.tasks import control_hz

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Episode:
    """What one episode came to.

    Attributes:
        seed: of the environment's reset and of the planner's random numbers.
        success: whether the task was solved.
        total_reward: sum of the rewards.
        length: control steps taken.
        seconds: the same in simulated time.
        max_coverage: the largest coverage reached, None if the task has none.
        chunks: the planned chunks, in order.
    """

    seed: int
    success: bool
    total_reward: float
    length: int
    seconds: float
    max_coverage: float | None
    chunks: tuple[Chunk, ...]


def run_episode(
    env: gymnasium.Env,
    planner: Planner,
    clock: Clock,
    seed: int,
    max_seconds: float,
    on_frame: Callable[[], object] = lambda: None,
) -> Episode:
    """Play one episode until the task is solved, the environment ends it or `max_seconds` of its time are over.

    The planner sees its last `n_obs_steps` observations (the first one repeated at the start) and `n_action_steps`
    actions of each chunk are executed before the next is planned (receding horizon). Everything but the measured
    times depends on `env`, `planner` and `seed` alone.

    Args:
        env: Dict observations, `info["is_success"]` at every step, a Box action space (see `make_task_env`).
        on_frame: called after the reset and after each step, for a video or a viewer.

    Raises:
        SpecpolicyError: the clock does not let the world wait; the chunk does not fit the action space.
    """
    hz = control_hz(env)
    max_steps = max(1, round(max_seconds * hz))
    space: Any = env.action_space
    planner.reset(seed)
    clock.reset()
    observation, info = env.reset(seed=seed)
    on_frame()
    frames = deque([observation] * planner.n_obs_steps, maxlen=planner.n_obs_steps)
    chunks: list[Chunk] = []
    length, total_reward, coverage = 0, 0.0, _coverage(info, None)
    done = bool(info["is_success"])
    while not done:
        chunk = planner.plan({key: np.stack([frame[key] for frame in frames]) for key in observation})
        _check(chunk, space)
        if clock.usable_step(length, chunk.seconds) != length:
            raise SpecpolicyError(f"the {clock.name} clock does not wait for the policy; this loop needs one that does")
        chunks.append(chunk)
        for action in chunk.actions[: planner.n_action_steps]:
            clock.wait_until(length)
            executed = np.clip(action, space.low, space.high).astype(space.dtype)
            observation, reward, terminated, truncated, info = env.step(executed)
            on_frame()
            frames.append(observation)
            length += 1
            total_reward += float(reward)
            coverage = _coverage(info, coverage)
            done = bool(terminated or truncated or info["is_success"] or length >= max_steps)
            if done:
                break
    return Episode(seed, bool(info["is_success"]), total_reward, length, length / hz, coverage, tuple(chunks))


def _coverage(info: dict[str, Any], largest: float | None) -> float | None:
    """The largest coverage so far: the environment's own record, or ours of its `coverage`."""
    found = info.get("max_coverage", info.get("coverage"))
    if found is None:
        return largest
    return float(found) if largest is None else max(largest, float(found))


def _check(chunk: Chunk, space: Any) -> None:
    if chunk.actions.ndim != 2 or chunk.actions.shape[1:] != space.shape or not len(chunk.actions):
        raise SpecpolicyError(
            f"the policy plans actions of shape {chunk.actions.shape[1:]}, the environment takes {space.shape}: "
            "was it trained on another task?"
        )
    if not np.isfinite(chunk.actions).all():
        raise SpecpolicyError("the policy planned an action that is not finite: check its weights and the observation")
