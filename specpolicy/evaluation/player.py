"""What a worker process does: play one episode with one sampler, and film it if asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from specpolicy.control.chunk import Planner
from specpolicy.control.clock import PausedClock
from specpolicy.evaluation.episode import Episode, run_episode
from specpolicy.evaluation.planners import ExpertPlanner, PolicyPlanner
from specpolicy.evaluation.video import choose_renderer, video_writer
from specpolicy.loading import load_policy
from specpolicy.samplers import make_sampler
from specpolicy.tasks import control_hz, make_task_env

if TYPE_CHECKING:
    import gymnasium

EXPERT = "expert"
Watch = contextlib.AbstractContextManager[Callable[[], None]]  # a window; the function is called once per frame


@dataclass(frozen=True)
class Setup:
    """What all episodes of an evaluation share.

    Attributes:
        task: the task configuration.
        policy: a checkpoint; unused if there is no sampler but "expert".
        samplers: label: {"name": ..., options}. The name "expert" stands for the task's scripted expert.
        device: where the policy runs.
        max_seconds: an episode that has not succeeded by then has failed (a task may end it sooner).
        video_size: height and width of a frame in pixels, for our own tasks.
    """

    task: Mapping[str, Any]
    policy: str
    samplers: Mapping[str, Mapping[str, Any]]
    device: str = "cpu"
    max_seconds: float = 60.0
    video_size: tuple[int, int] = (256, 256)


@dataclass(frozen=True)
class Job:
    """One episode to play; `video` is the file to film it into."""

    label: str
    seed: int
    video: str | None = None


@dataclass(frozen=True)
class Played:
    """A played episode. `no_video` says why it was not filmed although it should have been."""

    label: str
    episode: Episode
    no_video: str | None = None


class Player:
    """Environments, policy and planners, made when first needed and kept for all episodes of a process."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.clock = PausedClock()
        self.no_video: str | None = None
        self._envs: dict[bool, gymnasium.Env] = {}
        self._planners: dict[str, Planner] = {}
        self._policy: Any = None
        torch.set_num_threads(1)  # sums over threads round differently: results must not depend on their number
        choose_renderer()

    def __call__(self, job: Job, watch: Callable[[gymnasium.Env], Watch] | None = None) -> Played:
        """Play one episode; `watch` opens a window on its environment."""
        planner = self._planner(job.label)
        filming = self._filming_env() if job.video else None
        env = filming or self._env()
        on_frame: list[Callable[[], None]] = []
        with contextlib.ExitStack() as stack:
            if job.video and filming:
                write = stack.enter_context(video_writer(Path(job.video), control_hz(env)))
                on_frame.append(lambda: write(np.asarray(env.render())))
            if watch:
                on_frame.append(stack.enter_context(watch(env)))
            episode = run_episode(
                env, planner, self.clock, job.seed, self.setup.max_seconds, lambda: [call() for call in on_frame]
            )
        return Played(job.label, episode, self.no_video if job.video else None)

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs.values():
            env.close()

    def _env(self) -> gymnasium.Env:
        if False not in self._envs:
            self._envs[False] = make_task_env(self.setup.task)
        return self._envs[False]

    def _filming_env(self) -> gymnasium.Env | None:
        """The environment that draws, or None if drawing does not work here; the reason is kept."""
        if True not in self._envs and self.no_video is None:
            ours = str(self.setup.task["id"]).startswith("specpolicy/")
            size = {"render_size": self.setup.video_size} if ours else {}
            try:
                env = make_task_env(self.setup.task, render_mode="rgb_array", **size)
                env.reset(seed=0)
                if np.asarray(env.render()).ndim != 3:
                    raise RuntimeError("the environment draws no frames")
                self._envs[True] = env
            except Exception as error:  # a missing OpenGL library shows in many ways
                self.no_video = " ".join(f"{error}".split())[:300] or type(error).__name__
        return self._envs.get(True)

    def _planner(self, label: str) -> Planner:
        if label not in self._planners:
            planner = self._planners[label] = self._make_planner(label)
            # One chunk ahead of the measured ones, so that none of them pays for lazy initialisation.
            observation, _ = self._env().reset(seed=0)
            planner.reset(0)
            planner.plan({key: np.stack([frame] * planner.n_obs_steps) for key, frame in observation.items()})
        return self._planners[label]

    def _make_planner(self, label: str) -> Planner:
        options = dict(self.setup.samplers[label])
        name = options.pop("name")
        if name == EXPERT:
            return ExpertPlanner(str(self.setup.task["id"]))
        if self._policy is None:
            self._policy = load_policy(self.setup.policy, self.setup.device)
        return PolicyPlanner(self._policy, make_sampler(name, **options))
