"""Observations for the verbs that learn from a policy: read from a file, or seen while the policy plays its task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from specpolicy.errors import SpecpolicyError
from specpolicy.images import is_image

if TYPE_CHECKING:
    from specpolicy.policy import Policy

RECORDED_SEEDS, HELD_OUT_SEEDS = 300_000, 200_000  # differs from the seeds of training, evaluation and demonstrations
HELD_OUT_EPISODES = 40
TUNING_SEEDS, TUNING_COUNT = 400_000, 48


def check_source(policy: Policy, config: DictConfig) -> None:
    """Raise if `config.observations` cannot be read as the policy's, or is not given and the policy names no task."""
    from specpolicy.policy.histories import read_histories

    if config.observations:
        read_histories(config.observations, policy)
    else:
        _task(policy, config)


def conditions(policy: Policy, config: DictConfig) -> torch.Tensor:
    """Return the encoded observations (N, ...) of the file `config.observations`, or of `config.episodes` episodes.

    Images stay bytes until a few of them are encoded.
    """
    from specpolicy.evaluation.recording import record_conditions
    from specpolicy.policy.calibrating import as_in_use, encoded
    from specpolicy.policy.histories import read_histories

    if config.observations:
        return encoded(policy, read_histories(config.observations, policy), config.seed)
    count, seed, episodes = config.count, RECORDED_SEEDS, config.episodes
    if not config.get("learn", True):  # timing takes few observations, but not those that were learnt on
        count, seed, episodes = TUNING_COUNT, TUNING_SEEDS, TUNING_COUNT // 2
    found: torch.Tensor = _play(record_conditions, policy, config, "observations", count, seed, episodes)
    return as_in_use(policy, found.to(policy.device), config.seed)


def write_held_out(policy: Policy, config: DictConfig, output: Path) -> None:
    """Write `config.held_out` observations of other episodes for measurements, with the policy they belong to.

    Images are kept as bytes, and no more than `config.held_out_megabytes` of them: a checkpoint shall stay small.
    """
    from specpolicy.cli.configuration import save_config
    from specpolicy.evaluation.recording import record_histories
    from specpolicy.policy.histories import FILE, write_histories

    if config.held_out:
        count, size = config.held_out, image_bytes(policy)
        if size:
            count = max(1, min(count, int(config.held_out_megabytes * 1e6 / size)))
        episodes = min(HELD_OUT_EPISODES, count)
        name = "held-out observations"
        histories = _play(record_histories, policy, config, name, count, HELD_OUT_SEEDS, episodes)
        save_config(config, output / "calibrate.yaml", "calibrate")
        write_histories(output / FILE, histories)
        if count < config.held_out:
            taken = f"{count * size / 1e6:.2g} MB"
            print(f"kept {count} observations of held_out={config.held_out}: their images take {taken}")


def image_bytes(policy: Policy) -> int:
    """Return the bytes of the images in one observation of a policy, 0 for one that sees vectors alone."""
    shapes = [policy.frame_shape(key) for key in policy.observation_keys]
    return sum(math.prod(shape) for shape in shapes if is_image(shape[1:]))


def _play(
    record: Callable[..., Any], policy: Policy, config: DictConfig, name: str, count: int, seed: int, episodes: int
) -> Any:
    """Play with one of the functions of `specpolicy.evaluation.recording`."""
    from specpolicy.evaluation.provenance import hardware
    from specpolicy.logging.progress import progress_bar

    task = _task(policy, config)
    workers = hardware()["cores"] if config.workers is None else config.workers
    # Processes play on the CPU, whichever device the policy is calibrated for.
    engine = policy.engine_name if policy.engine_name in ("eager", "openvino") else "eager"
    with progress_bar(episodes, f"play for {name}") as bar:
        return record(
            config.policy,
            task,
            count,
            seed,
            episodes,
            workers,
            config.max_seconds,
            engine,
            bar.advance,
            config.any_rate,
        )


def _task(policy: Policy, config: DictConfig) -> Mapping[str, Any]:
    """Return the task that the policy plays."""
    task = policy.config.task
    if not task or "id" not in task:
        raise SpecpolicyError(
            f"{config.policy} names no task to play: give observations= (a safetensors file, each key of shape "
            f"(N, {policy.n_obs_steps}, size)), and held_out=0 if there is such a key"
        )
    return task
