"""What decides the result of a training run: a saved run goes on only with the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from specpolicy.data.dataset import Sequences
from specpolicy.fingerprints import LENGTH
from specpolicy.outputs import first_difference
from specpolicy.parsing import plain
from specpolicy.policy_base import Policy
from specpolicy.training.options import TrainingOptions

Identity = dict[str, Any]
BESIDE = ("command", "source")  # entries of a policy's configuration that say where it comes from, not what it is


def run_identity(
    policy: Policy,
    training: Sequences,
    validation: Sequences | None,
    options: TrainingOptions,
    settings: Mapping[str, Any] | None = None,
) -> Identity:
    """Everything that decides the result, as plain values; not the device, nor how many threads compute.

    Args:
        policy: untrained or trained: its configuration counts, its weights do not.
        settings: what else decides it, by name, such as what is played in rollouts.
    """
    config = {name: value for name, value in policy.config.to_dict().items() if name not in BESIDE}
    config |= {
        "first_action": policy.first_action,
        "normaliser": plain(policy.normaliser.to_config()),
        "observation_keys": list(policy.observation_keys),  # in their order, which is that of the condition
    }
    return {
        "options": {**asdict(options), **json.loads(json.dumps(settings or {}))},
        "data": {"training": _content(training), "validation": None if validation is None else _content(validation)},
        "policy": json.loads(json.dumps(config)),
    }


def validation_fingerprint(identity: Mapping[str, Any]) -> str:
    """Of what a validation loss is a loss of: the same windows, and the same to be predicted from them."""
    policy = identity["policy"]
    parts = [identity["data"], policy.get("chain"), policy.get("tokens")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:LENGTH]


def difference(found: Mapping[str, Any], wanted: Identity) -> str | None:
    """In what a saved run differs from the wanted one, in a few words; None if in nothing."""
    for part in wanted:
        different = first_difference(found.get(part) or {}, wanted[part])
        if different is None:
            continue
        name, old, new = different
        first, _, rest = name.partition(".")
        if part != "data":
            return f"another {first} ({f'{rest}=' if rest else ''}{old}, not {new})"
        if name.endswith("windows"):
            return f"other data ({old} windows for {first}, not {new})"
        return f"other data (the values of its windows for {first})"
    return None


def _content(sequences: Sequences) -> dict[str, Any]:
    """How many windows there are, and a hash of all their values."""
    digest = hashlib.sha256()
    for key, values in [*sorted(sequences.observation.items()), ("action", sequences.action)]:
        digest.update(f"{key} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return {"windows": len(sequences), "values": digest.hexdigest()}
