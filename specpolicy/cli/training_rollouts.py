"""Rollouts of `specpolicy train`: a few episodes with the policy in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

if TYPE_CHECKING:
    from specpolicy.policy import Policy
    from specpolicy.training.trainer import Rollout

ROLLOUT_SEED = 50_000  # first reset seed of the rollouts during training


def make_rollout(config: DictConfig, task: Mapping[str, Any], policy: Policy) -> Rollout:
    """Return a function that plays a few episodes with the policy in training and returns their mean results.

    Args:
        config: configuration of the training.
        task: where the policy is played.
        policy: untrained, as it will be played.

    Raises:
        SpecpolicyError: policy and task do not fit, or the sampler cannot draw for the policy.
    """
    import torch

    from specpolicy.cli.samplers import plain, sampler_specs
    from specpolicy.control.clock import PausedClock
    from specpolicy.evaluation.episode import run_episode
    from specpolicy.evaluation.planners import PolicyPlanner, check_policy_fits
    from specpolicy.sampler_names import make_sampler
    from specpolicy.tasks import make_task_env

    sampler: Any = policy.quick_sampler
    if config.rollout_sampler is not None:
        (spec,) = sampler_specs([plain(config.rollout_sampler)], config.get("config_directories", [])).values()
        sampler = make_sampler(**spec)
    policy.bound(sampler)
    env = make_task_env(task)
    check_policy_fits(policy, env, str(task["id"]), config.any_rate)

    def play(policy: Any, step: int) -> dict[str, float]:
        # The seeds differ from those of demonstrations and evaluations, so that nothing is chosen on test episodes.
        seeds = range(ROLLOUT_SEED, ROLLOUT_SEED + config.rollout_episodes)
        planner = PolicyPlanner(policy, sampler)
        with torch.random.fork_rng():
            episodes = [run_episode(env, planner, PausedClock(), seed, config.rollout_seconds) for seed in seeds]
        results: dict[str, list[float]] = {
            "success": [episode.success for episode in episodes],
            "length": [episode.length for episode in episodes],
            "max_coverage": [episode.max_coverage for episode in episodes if episode.max_coverage is not None],
        }
        return {name: sum(values) / len(values) for name, values in results.items() if values}

    return play
