"""The work of one process: play one episode of one condition, and film it if asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from specpolicy.committed import Committed
from specpolicy.control.chunk import Planner, history_of
from specpolicy.control.clock import Clock
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.episode import Episode, run_episode
from specpolicy.evaluation.planners import ExpertPlanner, PolicyPlanner
from specpolicy.evaluation.video import choose_renderer, video_writer
from specpolicy.policy import Policy, load_policy
from specpolicy.sampler_names import make_sampler
from specpolicy.tasks import control_hz, make_task_env

if TYPE_CHECKING:
    import gymnasium

EXPERT = "expert"
WARM_UP = 3  # chunks drawn before measurement begins
Watch = contextlib.AbstractContextManager[Callable[[], None]]  # opens a window; the function is called once per frame


@dataclass(frozen=True)
class Setup:
    """Settings that all episodes of an evaluation share.

    Attributes:
        task: the task configuration.
        policy: a checkpoint, or a policy in memory, already on its device; unused if the only sampler is "expert".
        samplers: {label: {"name": ..., options}}. The name "expert" stands for the task's scripted expert.
        device: device that the policy runs on.
        engine: engine that runs its network, see `specpolicy.engines`.
        max_seconds: simulated seconds after which an episode has failed (a task may end it sooner).
        video_size: height and width of a video frame in pixels, for the shipped tasks.
        batch: episodes that a process plays side by side, see `specpolicy.evaluation.together`.
        any_rate: accept a policy that was trained at another rate than the task's.
    """

    task: Mapping[str, Any]
    policy: str | Policy
    samplers: Mapping[str, Mapping[str, Any]]
    device: str = "cpu"
    engine: str = "eager"
    max_seconds: float = 60.0
    video_size: tuple[int, int] = (256, 256)
    batch: int = 1
    any_rate: bool = False

    def load(self) -> Any:
        """Load the policy, without its engine."""
        return load_policy(self.policy, self.device) if isinstance(self.policy, str) else self.policy


@dataclass(frozen=True)
class Job:
    """One episode to play; `video` is the file to film it to."""

    condition: Condition
    seed: int
    video: str | None = None


@dataclass(frozen=True)
class Played:
    """A played episode.

    Attributes:
        execute_steps: control steps from one request for a chunk to the next.
        no_video: the reason why it was not filmed although it should have been.
    """

    condition: Condition
    episode: Episode
    execute_steps: int
    no_video: str | None = None


class Player:
    """Plays episodes. Environments, policy and planners are made when first needed and kept for the whole process."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.no_video: str | None = None
        self._envs: dict[bool, gymnasium.Env] = {}
        self._planners: dict[str, Planner] = {}
        self._slowest: dict[tuple[str, str | None], float] = {}  # seconds of the slowest warm-up chunk
        self._clocks: dict[Condition, Clock] = {}
        self._counts: set[tuple[str, str, int]] = set()
        self._policy: Any = None
        torch.set_num_threads(1)  # sums round differently on more threads; results must not depend on their number
        choose_renderer()

    def __call__(
        self, job: Job, watch: Callable[[gymnasium.Env], Watch] | None = None, planner: Planner | None = None
    ) -> Played:
        """Play one episode.

        Args:
            job: the episode.
            watch: opens a window on its environment.
            planner: plans it; None: that of its condition's sampler.
        """
        planner = planner or self.planner(job.condition)
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
                env,
                planner,
                self._clock(job.condition, env),
                job.seed,
                self.setup.max_seconds,
                lambda: [call() for call in on_frame],
                job.condition.execution,
                self._slowest.get((job.condition.sampler, _way(job.condition)), 0.0),
            )
        horizon = job.condition.execute_steps or planner.n_action_steps
        return Played(job.condition, episode, horizon, self.no_video if job.video else None)

    def prepare(self) -> None:
        """Make the environment, which otherwise waits for the first episode."""
        self._env()

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs.values():
            env.close()

    def _env(self) -> gymnasium.Env:
        if False not in self._envs:
            self._envs[False] = make_task_env(self.setup.task)
        return self._envs[False]

    def _filming_env(self) -> gymnasium.Env | None:
        """Return the environment that draws; None if drawing does not work here, and keep the reason."""
        if True not in self._envs and self.no_video is None:
            ours = str(self.setup.task["id"]).startswith("specpolicy/")
            size = {"render_size": self.setup.video_size} if ours else {}
            try:
                env = make_task_env(self.setup.task, render_mode="rgb_array", **size)
                env.reset(seed=0)
                if np.asarray(env.render()).ndim != 3:
                    raise RuntimeError("the environment draws no frames")
                self._envs[True] = env
            except Exception as error:  # a missing OpenGL library raises many kinds of errors
                self.no_video = " ".join(f"{error}".split())[:300] or type(error).__name__
        return self._envs.get(True)

    def _clock(self, condition: Condition, env: gymnasium.Env) -> Clock:
        if condition not in self._clocks:
            self._clocks[condition] = condition.make_clock(control_hz(env))
        return self._clocks[condition]

    def planner(self, condition: Condition) -> Planner:
        """Return the planner of a condition's sampler, warmed up for its way to continue actions."""
        label, way = condition.sampler, _way(condition)
        if label not in self._planners:
            self._planners[label] = self._make_planner(label)
        if (label, way) not in self._slowest:
            self._slowest[label, way] = self._warm_up(self._planners[label], way)
        if way is not None and condition.clock == "charged":
            # How many actions an episode commits; `linear` has a matrix for each number, which nobody shall be charged.
            count = self._clock(condition, self._env()).delay_steps(self._slowest[label, way])
            if count > 1 and (label, way, count) not in self._counts:
                self._counts.add((label, way, count))
                self._warm_up(self._planners[label], way, count, calls=1)
        return self._planners[label]

    def _warm_up(self, planner: Planner, way: str | None, count: int = 1, calls: int = WARM_UP) -> float:
        """Return the seconds of the slowest chunk, without the first, which pays for lazy initialisation.

        Args:
            planner: plans the chunks.
            way: how they continue actions; None if they do not.
            count: how many actions.
            calls: number of chunks.
        """
        observation, _ = self._env().reset(seed=0)
        history = history_of([observation] * planner.n_obs_steps, getattr(planner, "pictures", None))
        planner.reset(0)
        given: dict[str, Any] = {}
        if way is not None and getattr(planner, "continues", False):
            actions = planner.plan(history).actions
            given["committed"] = Committed(actions, min(count, len(actions)), way)
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            planner.plan(history, **given)
            seconds.append(time.perf_counter() - start)
        return max(seconds[1:], default=0.0)

    def _make_planner(self, label: str) -> Planner:
        options = dict(self.setup.samplers[label])
        name = options.pop("name")
        if name == EXPERT:
            return ExpertPlanner(self.setup.task)
        if self._policy is None:
            policy = self.setup.load()
            own = self.setup.engine == policy.engine_name
            self._policy = policy if own else policy.with_engine(self.setup.engine)
        return PolicyPlanner(self._policy, make_sampler(name, **options))


def _way(condition: Condition) -> str | None:
    """How chunks of a condition continue committed actions; None if they do not."""
    return condition.stitching if condition.execution.continues else None
