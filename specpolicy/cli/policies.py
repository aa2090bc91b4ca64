"""The policy that a verb uses: a path, or an artifact of Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.artifacts import fetch, is_reference
from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.artifacts import Artifact


def pin(config: DictConfig, key: str = "policy") -> Artifact | None:
    """Fetch the artifact that a configuration names, and replace an alias there by the full version.

    An alias such as `latest` may move while a verb works. With the version in its place, results name the policy that
    was used, and worker processes find it in the cache.

    Returns:
        The artifact; None if the configuration names none.
    """
    if not is_reference(config[key] or ""):
        return None
    artifact = fetch(str(config[key]))
    config[key] = artifact.reference
    return artifact


def output_beside(config: DictConfig) -> Path:
    """Return the output of a verb that writes beside a policy's checkpoint by default.

    Raises:
        SpecpolicyError: no output is given, and the policy is an artifact, whose versions never change.
    """
    if config.output is None and is_reference(config.policy):
        raise SpecpolicyError(
            f"policy={config.policy}: versions of artifacts never change: give output=, another directory, or make a "
            f"checkpoint of your own first (specpolicy convert path={config.policy} out=...)"
        )
    return Path(config.output or config.policy)


def named(artifact: Artifact | None) -> dict[str, Any]:
    """Return what results record of a policy that is an artifact; empty for other policies."""
    return {} if artifact is None else {"artifact": {"name": artifact.name, "digest": artifact.digest}}


def run_config(
    config: DictConfig, artifact: Artifact | None, fingerprint: str | None, control_hz: float | None
) -> dict[str, Any]:
    """Return the configuration to log for a run that measures a policy, with what was measured and where.

    Args:
        config: the verb's configuration.
        artifact: the policy's artifact, if it is one.
        fingerprint: fingerprint of the policy; None if there is none.
        control_hz: control steps per second of the task, or of the policy.
    """
    from specpolicy.evaluation.provenance import hardware

    return {
        **plain(config),
        "policy_artifact": None if artifact is None else artifact.name,
        "policy_fingerprint": fingerprint,
        "control_hz": control_hz,
        "machine": hardware(),
    }
