"""Policies made by verbs, as artifacts for a logger that keeps them (Weights & Biases)."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.cli.beside import BESIDE
from specpolicy.policy.checkpoints import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from specpolicy.artifacts import Artifact
    from specpolicy.logging import MetricLogger, Score
    from specpolicy.policy import Policy


def artifact_name(policy: Policy) -> str:
    """Return a name shared by all policies for one task, kind of network and objective, such as "lift-unet" (of
    diffusion) or "lift-unet-flow"; each is a version."""
    task = (policy.config.task or {}).get("name") or "policy"
    kind = "tokens" if policy.kind == "tokens" else policy.config.network.kind
    objective = "-flow" if policy.config.flow is not None else "-mip" if policy.config.mip is not None else ""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{task}-{kind}{objective}")


def log_trained(
    policy: Policy,
    config: DictConfig,
    output: Path,
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    logger: MetricLogger,
) -> None:
    """Hand the trained policy in `output` to the logger, and print its name there.

    Args:
        policy: the policy.
        config: configuration of the training.
        output: directory of the policy.
        identity: identity of the training run, see `run_identity`.
        about: further metadata, by name.
        logger: receives the artifact.
    """
    from specpolicy.logging.csv_logger import last_values
    from specpolicy.policy import prediction

    found = last_values(output / "metrics.csv")
    figures = {name.replace("/", "_"): value for name, value in found.items() if not name.startswith("train/learning")}
    metadata = {**_described(policy), **about, "data": str(config.data), "steps": config.steps, **figures}
    predictor = [name for name in (prediction.WEIGHTS, prediction.SETTINGS) if (output / name).is_file()]
    files = {name: output / name for name in (WEIGHTS, CONFIG, *predictor)}
    _say(logger.log_policy(artifact_name(policy), files, metadata, _score(policy, config, identity, found)))


def log_calibrated(
    policy: Policy,
    place: Path,
    output: Path,
    artifact: Artifact | None,
    report: Mapping[str, Any],
    logger: MetricLogger,
) -> None:
    """Hand a policy and its new calibration to a logger, and print their name there.

    Args:
        policy: the policy.
        place: directory of the policy.
        output: directory of the calibration.
        artifact: the policy's artifact, if it came from one.
        report: results of the calibration, by name.
        logger: receives the artifact.
    """
    from specpolicy.cli.own_outputs import is_checkpoint

    beside = {name: path for directory in (place, output) for name in BESIDE if (path := directory / name).is_file()}
    metadata = {**_described(policy), "made_from": None if artifact is None else artifact.name, **report}
    with tempfile.TemporaryDirectory() as temporary:
        if not is_checkpoint(place):  # another project's artifact
            place = policy.save(Path(temporary))
        files = {name: place / name for name in (WEIGHTS, CONFIG)}
        _say(logger.log_policy(artifact_name(policy), {**files, **beside}, metadata, alias="calibrated"))


def _say(reference: str | None) -> None:
    if reference is not None:
        print(f"logged as {reference}")


def _described(policy: Policy) -> dict[str, Any]:
    return {
        "task": dict(policy.config.task or {}),
        "control_hz": policy.control_hz,
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "fingerprint": policy.fingerprint,
    }


def _score(policy: Policy, config: DictConfig, identity: Mapping[str, Any], found: Mapping[str, float]) -> Score | None:
    """Return the score of a trained policy: success if training played episodes, else the loss on held-out data."""
    from specpolicy.cli.samplers import plain, sampler_specs
    from specpolicy.logging import Score
    from specpolicy.training import validation_fingerprint

    success, loss = found.get("rollout/success"), found.get("validation/loss")
    if success is not None and config.rollout_every:
        given = plain(config.rollout_sampler) or policy.quick_sampler
        (sampler,) = sampler_specs([given], config.get("config_directories", []))  # its label
        played = f"{config.rollout_episodes} episodes of {config.task.name}, {config.rollout_seconds:g} s, {sampler}"
        return Score("rollout/success", played, success, higher=True)
    if loss is not None and math.isfinite(loss):
        return Score("validation/loss", validation_fingerprint(identity), loss)
    return None
