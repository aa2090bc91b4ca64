"""Records an episode of a scripted expert: a noisy action is executed, the clean one is the label."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.data.robomimic_hdf5 import Demonstration
from specpolicy.errors import SpecpolicyError
from specpolicy.tasks import control_hz, has_absolute_actions, kept_task, known_hz, make_task_env

if TYPE_CHECKING:
    from specpolicy_envs import Expert

ROBOMIMIC_GYM_TYPE = 2  # robomimic's EnvType.GYM_TYPE, for environments without their own description


@dataclass(frozen=True)
class Recording:
    """Settings that, together with its number, determine a demonstration.

    Attributes:
        task: the task configuration as JSON (a string, so that equal settings hash alike).
        noise: standard deviation of the noise on executed actions, relative to the environment's `action_noise_scale`
            (1 if it has none).
        seed: seed of the whole collection.
        max_seconds: an episode that has not succeeded by then has failed.
        expert: `module:function` called with (task id, seed), or None for the task's shipped expert.
    """

    task: str
    noise: float
    seed: int
    max_seconds: float
    expert: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The settings with the task unpacked."""
        return {**asdict(self), "task": kept_task(json.loads(self.task))}


def demonstration_seeds(seed: int, number: int) -> tuple[int, int, int]:
    """Return seeds of the environment's reset, the expert and the noise for one attempt of a collection.

    Reset seeds lie in [2**30, 2**31). Evaluation uses reset seeds below 2**30, so it never repeats a demonstration.
    """
    reset, expert, noise = np.random.SeedSequence((seed, number)).generate_state(3)
    return 2**30 + int(reset) % 2**30, int(expert) % 2**31, int(noise)


class Recorder:
    """An environment and an expert, kept for many episodes."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.env = make_task_env(json.loads(recording.task))
        self.expert = _make_expert(json.loads(recording.task), recording.expert)
        scale = getattr(self.env.unwrapped, "action_noise_scale", 1.0)
        self.sigma = recording.noise * np.asarray(scale, dtype=np.float64)
        self.max_steps = max(1, round(recording.max_seconds * control_hz(self.env)))

    def record(self, number: int) -> Demonstration:
        """Run attempt `number` until the task is solved or the time is over."""
        reset_seed, expert_seed, noise_seed = demonstration_seeds(self.recording.seed, number)
        rng = np.random.default_rng(noise_seed)
        space: Any = self.env.action_space
        observation, info = self.env.reset(seed=reset_seed)
        self.expert.reset(expert_seed)
        observations, states, actions, played, rewards = [_drawn(observation)], [], [], [], []
        finished = False
        while not finished:
            states.append(self._state())
            clean = np.asarray(self.expert.act(observation), dtype=np.float64)
            noisy = clean + self.sigma * rng.standard_normal(clean.shape)
            executed = np.clip(noisy, space.low, space.high).astype(space.dtype)
            observation, reward, terminated, truncated, info = self.env.step(executed)
            actions.append(np.clip(clean, space.low, space.high).astype(np.float32))
            played.append(executed.astype(np.float32))
            rewards.append(float(reward))
            observations.append(_drawn(observation))
            finished = terminated or truncated or info["is_success"] or len(actions) == self.max_steps
        dones = np.zeros(len(actions), dtype=np.int64)
        dones[-1] = 1
        return Demonstration(
            actions=np.stack(actions),
            states=np.stack(states),
            rewards=np.array(rewards),
            dones=dones,
            observations={key: np.stack([frame[key] for frame in observations]) for key in observation},
            success=bool(info["is_success"]),
            model_xml=self._call("model_xml", ""),
            executed=np.stack(played),
            reset_seed=reset_seed,
        )

    def env_args(self) -> dict[str, Any]:
        """Return robomimic's description of the environment."""
        task = json.loads(self.recording.task)
        foreign = {
            "env_name": task["id"],
            "env_version": None,
            "type": ROBOMIMIC_GYM_TYPE,
            "env_kwargs": task.get("kwargs") or {},
        }
        return self._call("env_args", foreign)

    def close(self) -> None:
        """Release the environment."""
        self.env.close()

    def _state(self) -> np.ndarray:
        return np.array(self._call("get_state", np.zeros(0)), dtype=np.float64)

    def _call(self, method: str, otherwise: Any) -> Any:
        """Return the result of a method that environments of other packages may lack."""
        bound = getattr(self.env.unwrapped, method, None)
        return otherwise if bound is None else bound()


def describe(recording: Recording) -> tuple[dict[str, Any], float | None]:
    """Return robomimic's description of the environment, and its control steps per second, None if unknown.

    Raises:
        SpecpolicyError: the task or the expert does not exist.
    """
    recorder = Recorder(recording)
    try:
        return recorder.env_args(), known_hz(recorder.env)
    finally:
        recorder.close()


def _drawn(observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The observation as arrays of its own, as some environments fill theirs anew; every picture is kept, so it is
    drawn while its moment is at hand."""
    return {key: np.array(value) for key, value in observation.items()}


def _make_expert(task: Mapping[str, Any], source: str | None) -> Expert:
    """Return the user's expert, or the one shipped for the task."""
    task_id = task["id"]
    if source is None:
        from specpolicy_envs import make_expert

        try:
            return make_expert(task_id, 0, has_absolute_actions(task))
        except ValueError as error:
            raise SpecpolicyError(f"{error} (your own: expert=module:function)") from error
    module, _, name = source.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(task_id, 0)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecpolicyError(f"expert={source}: {error}; expected module:function") from error
