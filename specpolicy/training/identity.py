"""Identity of a training run: everything that decides its result. A saved run resumes only with the same one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from specpolicy.data.dataset import Sequences
from specpolicy.fingerprints import LENGTH
from specpolicy.outputs import first_difference
from specpolicy.parsing import plain
from specpolicy.policy import Policy
from specpolicy.training.options import WATCHING, TrainingOptions

Identity = dict[str, Any]
BESIDE = ("command", "source")  # entries of a policy's configuration that name its origin
# Entries that runs of earlier versions saved, and that decide no weight.
IDLE = {*WATCHING, "rollout_episodes", "rollout_sampler", "rollout_seconds"}


def run_identity(
    policy: Policy,
    training: Sequences,
    validation: Sequences | None,
    options: TrainingOptions,
    settings: Mapping[str, Any] | None = None,
) -> Identity:
    """Return everything that decides the result, as plain values; not the device, nor the number of threads, nor that
    of processes, which decides what dropout drops.

    Args:
        policy: untrained or trained: its configuration counts, its weights do not.
        training, validation: windows.
        options: of the training.
        settings: more deciding settings by name, such as what is held out.
    """
    config = {name: value for name, value in policy.config.to_dict().items() if name not in BESIDE}
    config |= {
        "first_action": policy.first_action,
        "normaliser": plain(policy.normaliser.to_config()),
        "observation_keys": list(policy.observation_keys),  # in the order of the condition
    }
    return {
        "options": {**options.deciding(bool(policy.config.cameras)), **json.loads(json.dumps(settings or {}))},
        "data": {
            "training": _content(training, bool(policy.config.prefix)),
            "validation": None if validation is None else _content(validation, bool(policy.config.prefix)),
        },
        "policy": json.loads(json.dumps(config)),
    }


def validation_fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash the subject of a validation loss: the windows, and the values to predict from them."""
    policy = identity["policy"]
    parts = [
        identity["data"],
        policy.get("chain"),
        policy.get("tokens"),
        *(policy[name] for name in ("flow", "mip") if name in policy),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:LENGTH]


def difference(found: Mapping[str, Any], wanted: Identity) -> str | None:
    """Describe in a few words how a saved run differs from the wanted one; None if it does not."""
    for part in wanted:
        saved = {
            name: value for name, value in (found.get(part) or {}).items() if part != "options" or name not in IDLE
        }
        different = first_difference(saved, wanted[part])
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


def _content(sequences: Sequences, continues: bool) -> dict[str, Any]:
    """Return the number of windows, and a hash of all their values; `continues`: what was executed counts, too."""
    digest = hashlib.sha256()
    arrays = [*sorted(sequences.observation.items()), ("action", sequences.action)]
    arrays += [("executed_action", sequences.executed)] if continues and sequences.executed is not None else []
    for key, values in arrays:
        digest.update(f"{key} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    for key, images in sorted(sequences.images.items()):  # each once, though several windows see it
        digest.update(f"{key} {images.shape}".encode())
        for episode in images.episodes:
            episode.feed(digest)
    return {"windows": len(sequences), "values": digest.hexdigest()}
