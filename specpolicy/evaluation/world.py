"""What results were made with: versions, the simulator's physics, assets, weights and seeds. It decides success."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.physics import Physics, difference
from specpolicy.files import write_text
from specpolicy.fingerprints import LENGTH
from specpolicy.machine import versions
from specpolicy.parsing import parse, plain, read_json
from specpolicy.tasks import kept_task

if TYPE_CHECKING:
    from specpolicy.evaluation.runner import Evaluation

FILE = "world.json"  # beside the rows


@dataclass(frozen=True)
class World:
    """Where an evaluation was played.

    Attributes:
        versions: of Python and of the packages that results depend on.
        physics: see `specpolicy.evaluation.physics`.
    """

    versions: Mapping[str, str]
    physics: Physics


def this_world(task: Mapping[str, Any], physics: Physics) -> World:
    """Return what an evaluation of a task is played with here, with the version of the package that has the task."""
    own, package = {}, str(task["id"]).partition(":")[0].partition("/")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):  # a module of the user's
        own[package] = importlib.metadata.version(package)
    return World({**versions(), **own}, physics)


def write_world(output: Path, world: World) -> None:
    """Write it beside the rows; numbers that are not finite become null."""
    values = {key: _finite(rows) for key, rows in world.physics.values.items()}
    found = plain(world)
    found["physics"]["values"] = values
    write_text(output / FILE, json.dumps(found) + "\n")


def read_world(output: Path) -> World | None:
    """Return what the results in a directory were made with; None if they do not say, as those of older versions."""
    path = output / FILE
    return parse(World, read_json(path), path) if path.exists() else None


def require_same_world(one: World | None, other: World | None, where: str, remedy: str) -> None:
    """Refuse to put results of two worlds together. A package that one of them lacks is not compared.

    Args:
        one: the first; None: not known.
        other: the second.
        where: of the first, for the message.
        remedy: advice for the message.

    Raises:
        SpecpolicyError: the versions differ, or the physics.
    """
    if one is None or other is None:
        return
    for name, version in one.versions.items():
        if name != "python" and other.versions.get(name, version) != version:
            raise SpecpolicyError(f"{where} was made with {name} {version}, not {other.versions[name]}: {remedy}")
    if departs := difference(one.physics, other.physics):
        raise SpecpolicyError(f"{where} was made where the task's physics are others ({departs}): {remedy}")


def fingerprint(evaluation: Evaluation, policy: str | None, world: World) -> dict[str, Any]:
    """Return the fingerprint of results for their summary; `all` stands for the rest of it."""
    known = {
        "physics": world.physics.digest,
        "scene": _hash(dict(world.physics.model)) if world.physics.model else None,
        "task": _hash(kept_task(evaluation.setup.task)),
        "weights": policy,
        "seeds": [evaluation.seed, evaluation.seed + evaluation.episodes - 1],
        "versions": {name: version for name, version in world.versions.items() if name != "python"},
    }
    return {"all": _hash(known), **known}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:LENGTH]


def _finite(rows: Any) -> Any:
    numbers = np.asarray(rows, dtype=np.float64)
    found = numbers.astype(object)
    found[~np.isfinite(numbers)] = None
    return found.tolist()
