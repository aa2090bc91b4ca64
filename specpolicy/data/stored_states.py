"""Demonstrations that begin from a stored state of robosuite's simulation: robomimic's data sets, robosuite's own.

robomimic describes the environment in `env_args`, robosuite in `env` and `env_info`. Of each demonstration both keep
the scene (`model_file`), the state before each action (`states`) and the actions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from specpolicy.data.bounds import check_dataset
from specpolicy.data.robomimic_dataset import names_in, opened
from specpolicy.data.robomimic_hdf5 import EXECUTED
from specpolicy.errors import SpecpolicyError

ROBOSUITE = 1  # robomimic's EnvType of robosuite's environments


@dataclass(frozen=True)
class Stored:
    """One demonstration of T control steps.

    Attributes:
        scene: MJCF.
        states: (T, N) before each action: time, positions, velocities.
        actions: (T, D) as the environment was given them.
    """

    scene: str
    states: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class StoredStates:
    """A file of such demonstrations.

    Attributes:
        path: the file.
        name: of robosuite's environment.
        arguments: of the environment.
        versions: of robosuite when they were recorded, if that is known.
        names: of the demonstrations.
    """

    path: Path
    name: str
    arguments: Mapping[str, Any]
    versions: Mapping[str, str]
    names: tuple[str, ...]

    def read(self, names: tuple[str, ...]) -> Iterator[tuple[str, Stored]]:
        """Yield demonstrations by name.

        Raises:
            SpecpolicyError: one lacks its scene or its states, or they do not fit its actions.
        """
        with opened(self.path) as file:
            for name in names:
                yield name, _read(self.path, f"data/{name}", file["data"][name])


def stored_states(path: Path) -> StoredStates | None:
    """Return what begins from stored states; None if the file says nothing of robosuite.

    Raises:
        SpecpolicyError: the file is no demonstration file, or its description of the environment is damaged.
    """
    with opened(path) as file:
        names = tuple(names_in(path, file))
        attributes = file["data"].attrs
        where = f"{path}: data's attribute"
        if "env_args" in attributes:
            told = _mapping(attributes["env_args"], f"{where} env_args")
            if told.get("type") != ROBOSUITE:
                return None
            name, arguments, version = told.get("env_name"), told.get("env_kwargs") or {}, told.get("env_version")
        elif "env_info" in attributes:
            arguments = _mapping(attributes["env_info"], f"{where} env_info")
            name, version = attributes.get("env", arguments.get("env_name")), attributes.get("repository_version")
        else:
            return None
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise SpecpolicyError(f"{path} does not say which environment of robosuite it was recorded in")
        versions = {"robosuite": version} if isinstance(version, str) else {}
        others = {key: value for key, value in arguments.items() if key != "env_name"}
        return StoredStates(path, name, others, versions, names)


def _mapping(text: Any, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SpecpolicyError(f"{where} is no description of an environment")
    return found


def _read(path: Path, where: str, demo: Any) -> Stored:
    """Read one demonstration."""
    executed = EXECUTED if EXECUTED in demo else "actions"
    for key in ("states", executed):
        if not isinstance(demo.get(key), h5py.Dataset) or demo[key].ndim != 2:
            raise SpecpolicyError(f"{path}: {where} lacks '{key}', a row for each step: it cannot be played again")
        check_dataset(demo[key], f"{where}/{key}", path)
    scene, states, actions = demo.attrs.get("model_file"), demo["states"][()], demo[executed][()]
    if not isinstance(scene, str) or not scene:
        raise SpecpolicyError(f"{path}: {where} lacks 'model_file', the scene that it begins in")
    if len(states) != len(actions) or not len(states):
        raise SpecpolicyError(f"{path}: {where} has {len(states)} states and {len(actions)} actions: expected as many")
    return Stored(scene, np.asarray(states, dtype=np.float64), np.asarray(actions, dtype=np.float64))
