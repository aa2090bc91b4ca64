"""Recording of the observations that a policy meets when it acts, to calibrate drafters and time samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from specpolicy.control.clock import PausedClock
from specpolicy.evaluation.episode import run_episode
from specpolicy.evaluation.planners import PolicyPlanner, check_policy_fits
from specpolicy.histories import Histories, read_histories, write_histories
from specpolicy.images import as_recorded
from specpolicy.loading import load_policy
from specpolicy.processes import run_jobs
from specpolicy.tasks import make_task_env

__all__ = ["EpisodeRecorder", "Recording", "read_histories", "record_histories", "write_histories"]


class FrameRecorder(gymnasium.Wrapper):
    """Keeps every observation of the current episode."""

    frames: list[dict[str, np.ndarray]]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self.frames = [observation]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        self.frames.append(observation)
        return (observation, *rest)  # type: ignore[return-value]


@dataclass(frozen=True)
class Recording:
    """Settings that all recorded episodes share.

    Attributes:
        policy: path of the checkpoint.
        task: the task configuration.
        max_seconds: simulated seconds after which an episode is given up.
        engine: engine that runs the network, see `make_engine`.
        any_rate: accept a policy that was trained at another rate than the task's.
    """

    policy: str
    task: Mapping[str, Any]
    max_seconds: float = 60.0
    engine: str = "eager"
    any_rate: bool = False


class EpisodeRecorder:
    """Plays episodes and returns the observation histories of all their control steps.

    The policy acts with a fast sampler (DDIM-10, or cosine steps); the choice hardly changes the observations.
    """

    def __init__(self, recording: Recording):
        torch.set_num_threads(1)
        self.policy = load_policy(recording.policy, bare=True)
        self.env = FrameRecorder(make_task_env(recording.task))
        check_policy_fits(self.policy, self.env, str(recording.task["id"]), recording.any_rate)
        acting = self.policy if recording.engine == "eager" else self.policy.with_engine(recording.engine)
        self.planner = PolicyPlanner(acting, self.policy.quick_sampler)
        self.max_seconds = recording.max_seconds

    def __call__(self, seed: int) -> tuple[int, Histories]:
        """Play an episode; return its seed and {key: (steps, To, ...)}."""
        run_episode(self.env, self.planner, PausedClock(), seed, self.max_seconds)
        frames, count = self.env.frames, self.policy.n_obs_steps
        frames = [frames[0]] * (count - 1) + frames
        histories = {}
        for key in self.policy.observation_keys:
            column = as_recorded(np.stack([frame[key] for frame in frames]))
            histories[key] = np.stack([column[i : i + count] for i in range(len(column) - count + 1)])
        return seed, histories

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def record_histories(
    policy: str | Path,
    task: Mapping[str, Any],
    count: int,
    seed: int,
    episodes: int = 24,
    workers: int = 0,
    max_seconds: float = 60.0,
    engine: str = "eager",
    on_episode: Callable[[], object] = lambda: None,
    any_rate: bool = False,
) -> Histories:
    """Record observation histories that a checkpoint's policy meets in its task.

    The histories are drawn at random, with a seed, from all control steps of `episodes` episodes with the seeds `seed`,
    `seed` + 1, ...

    Args:
        policy: path of the checkpoint.
        task: the task configuration.
        count: number of histories to return.
        seed: first episode seed, and seed of the draw.
        episodes: number of episodes to play.
        workers: number of processes; 0 plays in this one.
        max_seconds: simulated seconds after which an episode is given up.
        engine: engine that runs the network.
        on_episode: called after each episode.
        any_rate: accept a policy that was trained at another rate than the task's.

    Returns:
        {key: (count, To, ...)}: vectors as float32, images as bytes.
    """
    played: dict[int, Histories] = {}
    jobs = range(seed, seed + episodes)
    recording = Recording(str(policy), task, max_seconds, engine, any_rate)
    for number, histories in run_jobs(EpisodeRecorder, recording, jobs, workers):
        played[number] = histories
        on_episode()
    joined = {key: np.concatenate([played[number][key] for number in jobs]) for key in played[seed]}
    available = len(next(iter(joined.values())))
    # In the order of the episodes, so that a held-out last part consists of whole episodes.
    chosen = np.sort(np.random.default_rng(seed).choice(available, count, replace=available < count))
    return {key: values[chosen] for key, values in joined.items()}
