"""From the configuration of `specpolicy evaluate` to what is played."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.cli.samplers import plain, sampler_specs
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.evaluation.runner import Evaluation
    from specpolicy.evaluation.stopping import EarlyStop
    from specpolicy.evaluation.tracks import Joining
    from specpolicy.policy import Policy


def planned(config: DictConfig, own: Policy | None) -> tuple[dict[str, Any], Evaluation]:
    """Return the track, with its execution horizon, and the evaluation to play."""
    from specpolicy.evaluation.conditions import Condition
    from specpolicy.evaluation.player import EXPERT, Setup
    from specpolicy.evaluation.runner import Evaluation
    from specpolicy.evaluation.shards import read_shard
    from specpolicy.evaluation.tracks import make_conditions
    from specpolicy.policy import load_policy

    policy = functools.cache(lambda: own or load_policy(config.policy, config.device))
    if config.policy == EXPERT:
        if config.samplers is not None and list(config.samplers) != [EXPERT]:
            raise SpecpolicyError(
                f"samplers={plain(config.samplers)}: policy=expert plans without a sampler: leave samplers out"
            )
        config.samplers = [EXPERT]
    elif config.samplers is None:
        config.samplers = [policy().best_sampler]
    setup = Setup(
        task=plain(config.task),
        policy=own or str(config.policy),
        samplers=sampler_specs(plain(config.samplers), config.get("config_directories", [])),
        device=str(config.device),
        engine="eager" if config.policy == EXPERT else str(config.engine),
        max_seconds=float(config.max_seconds),
        video_size=read_video_size(config.video_size),
        batch=config.batch,
        any_rate=config.any_rate,
    )
    experts = [label for label, spec in setup.samplers.items() if spec["name"] == EXPERT]
    sampled = [label for label in setup.samplers if label not in experts]
    horizon = config.execute_steps or (policy().n_action_steps if sampled else 1)
    track = {**plain(config.track), "execute_steps": horizon}
    # The expert plans one action at a time, so the world waits for it in every track.
    conditions = [*make_conditions(track, sampled, _joining(config), horizon), *map(Condition, experts)]
    shard = None if config.shard is None else read_shard(config.shard)
    which = (config.episodes, config.seed, config.videos, shard, config.record_actions)
    return track, Evaluation(setup, tuple(conditions), *which)


def check_shard(config: DictConfig, from_python: bool) -> None:
    """Refuse what only the whole evaluation has: a report, and whom it goes to."""
    if from_python:
        raise SpecpolicyError(f"shard={config.shard}: a shard has no summary to return, play it by specpolicy evaluate")
    if config.logger.name != "none":
        raise SpecpolicyError(
            f"logger={config.logger.name}: a shard has no report to log, give this to specpolicy merge"
        )


def early_stop(
    config: DictConfig, track: dict[str, Any], evaluation: Evaluation, references: list[str]
) -> EarlyStop | None:
    """Return what decides when enough is known; None if all episodes are wanted."""
    from specpolicy.evaluation.stopping import EarlyStop

    if config.stop is None:
        return None
    if not 0 < config.stop < 0.5:
        raise SpecpolicyError(f"stop={config.stop:g}: expected the probability of a wrong verdict, such as 0.05")
    if evaluation.shard is not None:
        raise SpecpolicyError("stop looks at pairs in the order of their seeds, and a shard has gaps: leave one out")
    if len(evaluation.conditions) < 2:
        raise SpecpolicyError("stop compares conditions, and there is one: name two samplers, or leave stop out")
    if track["name"] == "budget":
        raise SpecpolicyError("stop: the best setting within a budget is chosen by all episodes: leave stop out")
    return EarlyStop(evaluation.conditions, references, evaluation.seeds, config.stop, config.margin)


def on_engine(evaluation: Evaluation, output: Path) -> Evaluation:
    """Return the evaluation with the engine that `auto` is here; measuring takes a while, so the output is held."""
    from specpolicy.cli.engines import engine_for_processes
    from specpolicy.evaluation.settings import SETTINGS

    setup = evaluation.setup
    engine = engine_for_processes(setup.engine, setup.load, output / SETTINGS)
    return dataclasses.replace(evaluation, setup=dataclasses.replace(setup, engine=engine))


def read_video_size(size: Any) -> tuple[int, int]:
    """Return (height, width) in pixels; a side has two or more, as videos have an even number of them."""
    if len(size) != 2 or not all(isinstance(side, int) and side >= 2 for side in size):
        raise SpecpolicyError(f"video_size={list(size)}: expected [height, width] in pixels, each at least 2")
    return size[0], size[1]


def _joining(config: DictConfig) -> Joining:
    from specpolicy.evaluation.tracks import Joining, held_action

    horizon = config.execute_steps
    if horizon is not None and not (isinstance(horizon, int) and horizon > 0):
        raise SpecpolicyError(f"execute_steps={horizon}: expected a whole number of control steps, at least one")
    return Joining(
        stitching=tuple(map(str, config.stitching)),
        execute_steps=horizon,
        on_miss=str(config.on_miss),
        ensemble_decay=float(config.ensemble_decay),
        in_flight=int(config.in_flight),
        hold=held_action(plain(config.hold), plain(config.task)),
    )
