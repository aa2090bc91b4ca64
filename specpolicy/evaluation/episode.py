"""One episode in a simulated world, as a function of environment, planner, clock and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.control.chunk import Chunk, Planner
from specpolicy.control.clock import Clock
from specpolicy.control.execution import DeadlineMissed, Execution
from specpolicy.control.pilot import Pilot
from specpolicy.control.timing import TimingLog
from specpolicy.control.worker import InlineWorker
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.tapes import Tape, Taping
from specpolicy.tasks import control_hz

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Episode:
    """The outcome of one episode.

    Attributes:
        seed: seed of the environment's reset and of the planner's random numbers.
        success: whether the task was solved.
        total_reward: sum of the rewards.
        length: control steps taken.
        seconds: duration in simulated time.
        max_coverage: largest coverage reached; None if the task has no coverage.
        chunks: the planned chunks, in order.
        timing: timing of each chunk and control step: misses, steps without an action, ages, jumps.
        tape: what was executed and observed, without images.
    """

    seed: int
    success: bool
    total_reward: float
    length: int
    seconds: float
    max_coverage: float | None
    chunks: tuple[Chunk, ...]
    timing: TimingLog | None = None
    tape: Tape | None = field(default=None, compare=False, repr=False)


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
    """Play one episode until the task is solved, the environment ends it or its time is up.

    The planner sees its last `n_obs_steps` observations; at the start the first one is repeated. Unless `execution`
    says otherwise, `n_action_steps` actions of each chunk are executed before the next chunk is planned (receding
    horizon). The clock decides how many control steps the world moves on while a chunk is computed. The first chunk is
    there when the episode begins.

    The result depends only on `env`, `planner`, `clock`, `execution` and `seed`. The exceptions are measured times, and
    with the `charged` clock everything that follows from them.

    Args:
        env: an environment with Dict observations, `info["is_success"]` at every step and a Box action space (see
            `make_task_env`).
        planner: plans the chunks.
        clock: a simulated clock: `paused`, `delay` or `charged`.
        seed: seed of the reset and of the planner.
        max_seconds: simulated seconds after which the episode ends.
        on_frame: called after the reset and after each step, for a video or a viewer.
        execution: how chunks become actions. A missed deadline with `on_miss="stop"` ends the episode.
        slowest: seconds of the slowest call so far; the `charged` clock's lead allows for it.

    Raises:
        SpecpolicyError: the clock is a real-time clock, or the chunk does not fit the action space.
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
    taping = Taping(seed, observation)
    on_frame()
    chunks: list[Chunk] = []
    bounds = space.low, space.high
    pilot = Pilot(worker, clock, hz, execution, action_shape=space.shape, on_chunk=chunks.append, bounds=bounds)
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
        taping.add(executed, observation)
        on_frame()
        length += 1
        total_reward += float(reward)
        coverage = _coverage(info, coverage)
        done = bool(terminated or truncated or info["is_success"] or length >= max_steps)
    return Episode(
        seed,
        bool(info["is_success"]),
        total_reward,
        length,
        length / hz,
        coverage,
        tuple(chunks),
        pilot.log,
        taping.tape(),
    )


def _coverage(info: dict[str, Any], largest: float | None) -> float | None:
    """Return the largest coverage so far: the environment's own record, or the largest `coverage` seen."""
    found = info.get("max_coverage", info.get("coverage"))
    if found is None:
        return largest
    return float(found) if largest is None else max(largest, float(found))
