"""One episode in a simulated world, as a function of the environment, the planner, the clock and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.control.chunk import Chunk, Planner
from specpolicy.control.clock import Clock
from specpolicy.control.execution import DeadlineMissed, Execution
from specpolicy.control.pilot import Pilot
from specpolicy.control.timing import TimingLog
from specpolicy.control.worker import InlineWorker
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
        timing: what became of each chunk and of each control step: misses, starved ticks, ages, jumps.
    """

    seed: int
    success: bool
    total_reward: float
    length: int
    seconds: float
    max_coverage: float | None
    chunks: tuple[Chunk, ...]
    timing: TimingLog | None = None


def run_episode(
    env: gymnasium.Env,
    planner: Planner,
    clock: Clock,
    seed: int,
    max_seconds: float,
    on_frame: Callable[[], object] = lambda: None,
    execution: Execution | None = None,
    slowest: float = 0.0,
) -> Episode:
    """Play one episode until the task is solved, the environment ends it or `max_seconds` of its time are over.

    The planner sees its last `n_obs_steps` observations (the first one repeated at the start) and, unless `execution`
    says otherwise, `n_action_steps` actions of each chunk are executed before the next is planned (receding horizon).
    The clock says by how many control steps the world moves on while a chunk is computed; the first chunk is there
    when the episode begins. Everything but the measured times, and what the `charged` clock makes of them, depends on
    `env`, `planner`, `clock`, `execution` and `seed` alone.

    Args:
        env: Dict observations, `info["is_success"]` at every step, a Box action space (see `make_task_env`).
        clock: of a simulated world: `paused`, `delay` or `charged`.
        on_frame: called after the reset and after each step, for a video or a viewer.
        execution: how chunks become actions. A deadline missed under `on_miss="stop"` ends the episode.
        slowest: seconds of the slowest call so far, which the `charged` clock's lead allows for.

    Raises:
        SpecpolicyError: the clock is that of real time; the chunk does not fit the action space.
    """
    if not clock.simulated:
        raise SpecpolicyError(
            f"an episode in simulated time cannot follow the {clock.name} clock: use paused, delay or charged"
        )
    hz = control_hz(env)
    max_steps = max(1, round(max_seconds * hz))
    space: Any = env.action_space
    worker = InlineWorker(planner)
    worker.reset(seed)
    clock.reset(seed)
    observation, info = env.reset(seed=seed)
    on_frame()
    chunks: list[Chunk] = []
    pilot = Pilot(worker, clock, hz, execution, action_shape=space.shape, on_chunk=chunks.append)
    length, total_reward, coverage = 0, 0.0, _coverage(info, None)
    done = bool(info["is_success"])
    if not done:
        pilot.begin(observation, slowest)
    while not done:
        try:
            command = pilot.tick(length, length / hz, observation)
        except DeadlineMissed:
            break
        executed = np.clip(command.action, space.low, space.high).astype(space.dtype)
        observation, reward, terminated, truncated, info = env.step(executed)
        on_frame()
        length += 1
        total_reward += float(reward)
        coverage = _coverage(info, coverage)
        done = bool(terminated or truncated or info["is_success"] or length >= max_steps)
    return Episode(
        seed, bool(info["is_success"]), total_reward, length, length / hz, coverage, tuple(chunks), pilot.log
    )


def _coverage(info: dict[str, Any], largest: float | None) -> float | None:
    """The largest coverage so far: the environment's own record, or ours of its `coverage`."""
    found = info.get("max_coverage", info.get("coverage"))
    if found is None:
        return largest
    return float(found) if largest is None else max(largest, float(found))
