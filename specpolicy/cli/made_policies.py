"""The policies that verbs make, for a logger that keeps them: Weights & Biases, as artifacts."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.checkpoints import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from specpolicy.artifacts import Artifact
    from specpolicy.logging import MetricLogger, Score
    from specpolicy.policy_base import Policy


def artifact_name(policy: Policy) -> str:
    """Of all policies for one task and of one kind of network, such as "lift-unet"; others are other versions."""
    task = (policy.config.task or {}).get("name") or "policy"
    kind = "tokens" if policy.kind == "tokens" else policy.config.network.kind
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{task}-{kind}")


def log_trained(
    policy: Policy,
    config: DictConfig,
    output: Path,
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    logger: MetricLogger,
) -> None:
    """Hand the policy that a training has saved in `output` to its logger, and say what it is called there.

    Args:
        identity: of the training run, see `run_identity`.
        about: what else to say of it, by name.
    """
    from specpolicy.logging.csv_logger import last_values

    found = last_values(output / "metrics.csv")
    figures = {name.replace("/", "_"): value for name, value in found.items() if not name.startswith("train/learning")}
    metadata = {**_described(policy), **about, "data": str(config.data), "steps": config.steps, **figures}
    files = {name: output / name for name in (WEIGHTS, CONFIG)}
    _say(logger.log_policy(artifact_name(policy), files, metadata, _score(config, identity, found)))


def log_calibrated(
    policy: Policy,
    place: Path,
    output: Path,
    artifact: Artifact | None,
    report: Mapping[str, Any],
    logger: MetricLogger,
) -> None:
    """Hand a policy and the calibration that was made for it to a logger, and say what they are called there.

    Args:
        place: where the policy lies. output: where what belongs to it was written.
        artifact: the policy, if it is one.
        report: what was found, by name.
    """
    from specpolicy.cli.own_outputs import is_checkpoint
    from specpolicy.cli.train import BESIDE

    beside = {name: path for directory in (place, output) for name in BESIDE if (path := directory / name).is_file()}
    metadata = {**_described(policy), "made_from": None if artifact is None else artifact.name, **report}
    with tempfile.TemporaryDirectory() as temporary:
        if not is_checkpoint(place):  # another project's
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


def _score(config: DictConfig, identity: Mapping[str, Any], found: Mapping[str, float]) -> Score | None:
    """By success where a training has played, else by the loss on what it was not trained on."""
    from specpolicy.logging import Score
    from specpolicy.training import validation_fingerprint

    success, loss = found.get("rollout/success"), found.get("validation/loss")
    if success is not None and config.rollout_every:
        played = f"{config.rollout_episodes} episodes of {config.task.name}, {config.rollout_seconds:g} s"
        return Score("rollout/success", played, success, higher=True)
    if loss is not None and math.isfinite(loss):
        return Score("validation/loss", validation_fingerprint(identity), loss)
    return None
