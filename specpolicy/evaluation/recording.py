"""Observations that a policy meets when it acts: what drafters are calibrated on and samplers are timed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from specpolicy.control.clock import PausedClock
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.episode import run_episode
from specpolicy.evaluation.planners import PolicyPlanner, check_policy_fits
from specpolicy.files import atomic_path
from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import make_sampler
from specpolicy.tasks import make_task_env

Histories = dict[str, np.ndarray]


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


def record_histories(
    policy: DiffusionPolicy,
    task: Mapping[str, Any],
    count: int,
    seed: int,
    episodes: int = 24,
    max_seconds: float = 60.0,
    on_episode: Callable[[], object] = lambda: None,
) -> Histories:
    """{key: (count, To, D_key)} float32 histories, drawn from all control steps of `episodes` episodes of the policy.

    The policy acts by DDIM-10, which is quick; which sampler acts matters little for what is seen. Episodes are
    those of the seeds from `seed` on; the draw is seeded too.
    """
    env = FrameRecorder(make_task_env(task))
    try:
        check_policy_fits(policy, env, str(task["id"]))
        planner = PolicyPlanner(policy, make_sampler("ddim", steps=10))
        found: list[Histories] = []
        for index in range(episodes):
            run_episode(env, planner, PausedClock(), seed + index, max_seconds)
            frames = [env.frames[0]] * (policy.n_obs_steps - 1) + env.frames
            for start in range(len(frames) - policy.n_obs_steps + 1):
                history = frames[start : start + policy.n_obs_steps]
                found.append({key: np.stack([f[key] for f in history]) for key in policy.observation_keys})
            on_episode()
    finally:
        env.close()
    chosen = np.random.default_rng(seed).choice(len(found), count, replace=len(found) < count)
    return {key: np.stack([found[i][key] for i in chosen]).astype(np.float32) for key in policy.observation_keys}


def write_histories(path: str | Path, histories: Histories) -> None:
    """Write recorded observations as safetensors."""
    with atomic_path(Path(path)) as temporary:
        save_file(histories, temporary)


def read_histories(path: str | Path, policy: DiffusionPolicy) -> Histories:
    """Read observations that were recorded for this policy."""
    try:
        histories = load_file(path)
    except FileNotFoundError:
        raise SpecpolicyError(f"no recorded observations at {path}: `specpolicy calibrate` writes them") from None
    except SafetensorError as error:
        raise SpecpolicyError(f"{path} cannot be read ({error}): record the observations again") from None
    missing = [key for key in policy.observation_keys if key not in histories]
    if missing:
        raise SpecpolicyError(f"{path} has no '{missing[0]}': it was recorded for another policy")
    return {key: histories[key] for key in policy.observation_keys}
