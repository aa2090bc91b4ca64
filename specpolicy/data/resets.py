"""The resets that demonstrations begin with: their task, and the seed of each, as `specpolicy collect` stores them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from specpolicy.data.dataset import data_kind
from specpolicy.data.recorder import demonstration_seeds
from specpolicy.data.robomimic_hdf5 import RESET_SEED, read_attribute
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import read_json, shown

ATTEMPTS = 100  # of a collection in a row that may have failed


@dataclass(frozen=True)
class Resets:
    """How the episodes of a data set began.

    Attributes:
        task: the task's configuration.
        seeds: of the resets, by the name of the episode; empty if an earlier version of specpolicy wrote the data.
        collection: seed of the collection.
        versions: of the packages that recorded them; {} if they do not say.
    """

    task: dict[str, Any]
    seeds: dict[str, int]
    collection: int
    versions: dict[str, str]

    def candidates(self, after: int) -> Iterator[tuple[int, int]]:
        """Yield (attempt, seed of its reset) of the attempts after one; failed attempts were not kept."""
        for attempt in range(after + 1, after + 1 + ATTEMPTS):
            yield attempt, demonstration_seeds(self.collection, attempt)[0]


def read_resets(path: Path) -> Resets:
    """Return the resets of a data set of ours.

    Raises:
        SpecpolicyError: it is of another project, which stores no seeds; it is damaged.
    """
    kind = data_kind(path)
    if kind == "robomimic":
        task, collection, versions = (read_attribute(path, name) for name in ("task", "collection", "versions"))
        with h5py.File(path, "r") as file:
            found = {name: demo.attrs.get(RESET_SEED) for name, demo in file["data"].items()}
        seeds = {name: _seed(seed, f"{path}: data/{name}") for name, seed in found.items() if seed is not None}
    elif kind == "lerobot" and (path / "meta" / "specpolicy.json").is_file():
        ours = read_json(path / "meta" / "specpolicy.json")
        task, collection, versions = (ours.get(name) for name in ("task", "collection", "versions"))
        listed = enumerate(ours.get("reset_seeds") or [])
        seeds = {str(number): _seed(seed, f"{path}: episode {number}") for number, seed in listed if seed is not None}
        if not seeds:
            raise SpecpolicyError(f"{path} does not say how its episodes began: record it again with this version")
    else:
        task = collection = versions = None
    if not isinstance(task, dict) or not isinstance(collection, dict) or "id" not in task or "seed" not in collection:
        raise SpecpolicyError(
            f"{path} is not of specpolicy collect, robomimic or robosuite: neither a seed nor a stored state says how "
            "its episodes began"
        )
    own = _seed(collection["seed"], f"{path}: the collection")
    return Resets(task, seeds, own, versions if isinstance(versions, dict) else {})


def _seed(value: Any, where: str) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise SpecpolicyError(f"{where} is damaged: its seed is {shown(value)}")
    return int(value)
