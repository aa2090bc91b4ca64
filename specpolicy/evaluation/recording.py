"""Recording of the observations that a policy meets when it acts, to calibrate drafters and time samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from specpolicy.cluster.jobs import run_jobs
from specpolicy.control.clock import PausedClock
from specpolicy.evaluation.episode import run_episode
from specpolicy.evaluation.planners import PolicyPlanner, check_policy_fits
from specpolicy.images import as_recorded, is_image
from specpolicy.policy import load_policy
from specpolicy.policy.encoding import APART
from specpolicy.policy.histories import Histories, read_histories, write_histories
from specpolicy.tasks import make_task_env

__all__ = [
    "EpisodeRecorder",
    "Recording",
    "read_histories",
    "record_conditions",
    "record_histories",
    "write_histories",
]

CONDITION = "condition"  # stands for all keys of an observation that was encoded
SPARE = 2  # images are drawn for at most as many observations of an episode as its share, times this


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
        most: if the policy sees images, the most observations of an episode, drawn at random; None: all.
        encoded: return the conditions of the observations instead of the observations.
    """

    policy: str
    task: Mapping[str, Any]
    max_seconds: float = 60.0
    engine: str = "eager"
    any_rate: bool = False
    most: int | None = None
    encoded: bool = False


class EpisodeRecorder:
    """Plays episodes and returns the observation histories of their control steps, or the conditions of these.

    The policy acts with a fast sampler (DDIM-10, or cosine steps); the choice hardly changes the observations. Images
    that are drawn on demand are drawn for the returned observations only, and each is encoded once.
    """

    def __init__(self, recording: Recording):
        torch.set_num_threads(1)
        self.policy = load_policy(recording.policy, bare=True)
        self.env = FrameRecorder(make_task_env(recording.task))
        check_policy_fits(self.policy, self.env, str(recording.task["id"]), recording.any_rate)
        self.acting = self.policy if recording.engine == "eager" else self.policy.with_engine(recording.engine)
        self.planner = PolicyPlanner(self.acting, self.policy.quick_sampler)
        self.max_seconds, self.encoded = recording.max_seconds, recording.encoded
        sees = any(is_image(self.policy.frame_shape(key)[1:]) for key in self.policy.observation_keys)
        self.most = recording.most if sees else None

    def __call__(self, seed: int) -> tuple[int, Histories]:
        """Play an episode; return its seed and {key: (steps, To, ...)}, or {CONDITION: (steps, ...)}."""
        run_episode(self.env, self.planner, PausedClock(), seed, self.max_seconds)
        steps = np.arange(len(self.env.frames))
        if self.most is not None and self.most < len(steps):
            steps = np.sort(np.random.default_rng(seed).choice(steps, self.most, replace=False))
        if not self.encoded:
            return seed, self._histories(steps)
        # In small batches images are encoded one by one, and a frame of two of them is not encoded again.
        parts = np.split(steps, range(APART, len(steps), APART))
        with torch.inference_mode():
            conditions = [self.acting.encode(self._histories(part)).numpy() for part in parts]
        return seed, {CONDITION: np.concatenate(conditions)}

    def _histories(self, steps: np.ndarray) -> Histories:
        """Return {key: (len(steps), To, ...)}, the histories of these steps of the episode."""
        shown = steps[:, None] + np.arange(1 - self.policy.n_obs_steps, 1)  # the first frame stands for those before
        numbers, place = np.unique(shown.clip(min=0), return_inverse=True)
        frames, place = [self.env.frames[number] for number in numbers], place.reshape(shown.shape)
        return {
            key: as_recorded(np.stack([frame[key] for frame in frames]))[place] for key in self.policy.observation_keys
        }

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
    *,
    encoded: bool = False,
) -> Histories:
    """Record observation histories that a checkpoint's policy meets in its task.

    The histories are drawn at random, with a seed, from all control steps of `episodes` episodes with the seeds `seed`,
    `seed` + 1, ... If the policy sees images, an episode gives at most twice its share of `count`, so that few images
    are drawn and kept.

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
        encoded: see `record_conditions`.

    Returns:
        {key: (count, To, ...)}: vectors as float32, images as bytes.
    """
    played: dict[int, Histories] = {}
    jobs = range(seed, seed + episodes)
    most = SPARE * -(-count // episodes)
    recording = Recording(str(policy), task, max_seconds, engine, any_rate, most, encoded)
    for number, histories in run_jobs(EpisodeRecorder, recording, jobs, workers):
        played[number] = histories
        on_episode()
    joined = {key: np.concatenate([played[number][key] for number in jobs]) for key in played[seed]}
    available = len(next(iter(joined.values())))
    # In the order of the episodes, so that a held-out last part consists of whole episodes.
    chosen = np.sort(np.random.default_rng(seed).choice(available, count, replace=available < count))
    return {key: values[chosen] for key, values in joined.items()}


def record_conditions(*arguments: Any, **options: Any) -> torch.Tensor:
    """Return the conditions (count, ...) of the observations that `record_histories` returns for the same arguments.

    Observations are encoded where they are seen, each once, so no image outlives its episode.
    """
    return torch.from_numpy(record_histories(*arguments, **options, encoded=True)[CONDITION])
