"""Play one episode of a policy, print the result and save a video; with a screen, also show it in a window.

The world waits while the policy computes, so the episode is the one that `specpolicy evaluate` plays with this seed.

Examples:
  specpolicy rollout task=lift policy=checkpoints/lift seed=100003
  specpolicy rollout task=push_t policy=checkpoints/push_t sampler=ddim sampler.steps=4 viewer=false
  specpolicy rollout task=lift policy=expert
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.evaluation.player import Played


def run(config: DictConfig) -> None:
    """Play the episode that `config` (configs/rollout.yaml) describes."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.engines import on_engine
    from specpolicy.cli.evaluation_plan import read_video_size
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.cli.policies import pin
    from specpolicy.cli.samplers import name_best_sampler, plain, sampler_specs
    from specpolicy.evaluation import runner
    from specpolicy.evaluation.conditions import Condition
    from specpolicy.evaluation.player import EXPERT, Job, Player, Setup
    from specpolicy.evaluation.viewer import window
    from specpolicy.outputs import claim, default_name, file_name
    from specpolicy.policy import load_policy

    pin(config)
    config_directories = config.get("config_directories", [])
    task: Any = OmegaConf.to_container(config.task)
    if config.policy == EXPERT and config.sampler is not None:
        raise SpecpolicyError(
            f"sampler={config.sampler.get('name')}: policy=expert plans without a sampler: leave sampler out"
        )
    if config.policy != EXPERT:
        policy = load_policy(config.policy, config.device)
        name_best_sampler(config, policy)
    sampler = EXPERT if config.policy == EXPERT else plain(config.sampler)
    samplers = sampler_specs([sampler], config_directories)
    (label,) = samplers
    show = _wants_window(config.viewer)
    output = Path(config.output or f"outputs/rollout/{file_name(config.task.name)}-{default_name(config.policy)}")
    video = runner.video_path(output, label, config.seed) if config.video else None
    if show and not _has_physics(task):  # then its own window is used, which leaves no frames for a video
        task["kwargs"] = {**(task.get("kwargs") or {}), "render_mode": "human"}
        video = None
    setup = Setup(
        task=task,
        policy=str(config.policy),
        samplers=samplers,
        device=str(config.device),
        max_seconds=float(config.max_seconds),
        video_size=read_video_size(config.video_size),
        any_rate=config.any_rate,
    )
    condition = Condition(label)
    with claim(output, "rollout"):
        check_own(output, "rollout", ["config.yaml", *([f"videos/{glob.escape(video.name)}"] if video else [])])
        if config.policy != EXPERT:
            setup = dataclasses.replace(setup, engine=on_engine(policy, str(config.engine)).engine_name)
        runner.check(runner.Evaluation(setup, (condition,), episodes=1, seed=config.seed))
        save_config(config, output, "rollout")
        with contextlib.closing(Player(setup)) as player:
            played = player(Job(condition, config.seed, str(video) if video else None), watch=window if show else None)
    print(describe(played))
    if played.no_video:
        print(f"no video: {played.no_video}", file=sys.stderr)
    elif video:
        print(f"video: {video}")


def describe(played: Played) -> str:
    """Describe the result of the episode in one or two lines."""
    from specpolicy.evaluation.results import episode_row

    episode = played.episode
    row: dict[str, Any] = episode_row("", played.condition, episode, played.execute_steps)
    outcome = "solved" if episode.success else "not solved"
    lines = (
        f"{played.condition.label}, seed {episode.seed}: {outcome} in {episode.length} steps ({episode.seconds:.1f} s)"
    )
    if episode.max_coverage is not None:
        lines += f", maximum coverage {episode.max_coverage:.2f}"
    lines += f", return {episode.total_reward:.3g}"
    if row["calls"]:
        lines += (
            f"\n{row['chunks']} chunks: {1e3 * row['chunk_seconds_p50']:.1f} ms each (median), "
            f"{row['calls'] / row['chunks']:.4g} network calls, {row['network_share']:.0%} of the time in the network, "
            f"{row['encode_share']:.0%} in encoding"
        )
    return lines


def _wants_window(viewer: Any) -> bool:
    from specpolicy.evaluation.video import has_screen

    if viewer not in ("auto", True, False):
        raise SpecpolicyError(f"viewer={viewer}: expected auto, true or false")
    if viewer is True and not has_screen():
        raise SpecpolicyError("viewer=true: there is no screen (DISPLAY is not set); viewer=false saves a video only")
    return has_screen() if viewer == "auto" else bool(viewer)


def _has_physics(task: dict[str, Any]) -> bool:
    from specpolicy.evaluation.viewer import has_physics
    from specpolicy.tasks import make_task_env

    with contextlib.closing(make_task_env(task)) as env:
        return has_physics(env)
