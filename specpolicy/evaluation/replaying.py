"""Plays recorded actions again and says where the physics departs from the recording."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.data.dataset import data_kind, observation_keys, read_data
from specpolicy.data.resets import Resets, read_resets
from specpolicy.data.robomimic_hdf5 import read_attribute
from specpolicy.data.stored_states import StoredStates, stored_states
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.departures import Departure, departure
from specpolicy.evaluation.settings import SETTINGS, read_settings
from specpolicy.evaluation.tapes import DIRECTORY, Tape, play_again, read_tape
from specpolicy.evaluation.world import read_world
from specpolicy.machine import versions
from specpolicy.tasks import make_task_env

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Replayed:
    """One episode, played again.

    Attributes:
        name: of the episode in the recording.
        seed: of its reset; None if no seed of the collection begins as it does, or if it begins from a stored state.
        steps: control steps of the recording.
        departure: where it departs by more than the tolerance; None: nowhere.
        identical: whether it is the same to the bit.
    """

    name: str
    seed: int | None
    steps: int
    departure: Departure | None
    identical: bool

    def __str__(self) -> str:
        if self.departure is None:
            return f"{self.name}: the same{' to the bit' if self.identical else ''}, {self.steps} steps"
        return f"{self.name}: departs {self.departure}, of {self.steps} steps"


@dataclass(frozen=True)
class Recorded:
    """Recorded episodes to play again.

    Attributes:
        task: the task's configuration.
        names: of the episodes.
        path: where they are.
        versions: that they were recorded with; {} if that is not known.
        resets: of demonstrations; None: they are tapes, or begin from stored states.
        stored: the states that demonstrations of other projects begin from.
    """

    task: dict[str, Any]
    names: tuple[str, ...]
    path: Path
    versions: Mapping[str, str]
    resets: Resets | None = None
    stored: StoredStates | None = None

    @property
    def changed(self) -> list[str]:
        """The packages that have another version here, such as "mujoco 3.2.7, here 3.3.0"."""
        here = versions()
        return [
            f"{name} {version}, here {here[name]}"
            for name, version in self.versions.items()
            if here.get(name, version) != version
        ]


def recorded(path: Path) -> Recorded:
    """Find what can be played again: demonstrations of `specpolicy collect`, of robomimic or robosuite, or an
    evaluation with recorded actions.

    Raises:
        SpecpolicyError: there is nothing of the kind.
    """
    settings = read_settings(path / SETTINGS) if path.is_dir() else None
    if settings is None:
        if data_kind(path) == "robomimic" and read_attribute(path, "collection") is None:
            stored = stored_states(path)
            if stored is not None:
                return Recorded({}, stored.names, path, stored.versions, stored=stored)
        resets = read_resets(path)
        episodes = read_data(path, observation_keys(path)).episodes
        return Recorded(resets.task, tuple(episodes), path, resets.versions, resets)
    names = tuple(sorted(file.stem for file in (path / DIRECTORY).glob("*.npz") if not file.name.startswith(".")))
    if not names:
        raise SpecpolicyError(f"{path} has no recorded actions: evaluate with record_actions=true keeps them")
    world = read_world(path)
    return Recorded(settings["task"], names, path, {} if world is None else world.versions)


def replay(found: Recorded, count: int | None, tolerance: float) -> Iterator[Replayed]:
    """Play the first `count` episodes again, all if None.

    Raises:
        SpecpolicyError: the task is not the one that was recorded; a damaged recording.
    """
    names = found.names[:count]
    if found.stored is not None:
        from specpolicy.evaluation.stored_replay import play_stored

        for name, tape, again in play_stored(found.stored, names):
            yield replace(compare(name, tape, again, tolerance), seed=None)
        return
    with contextlib.closing(make_task_env(found.task)) as env:
        attempt = -1
        for name, tape in _tapes(found, names, env):
            if found.resets is not None and name not in found.resets.seeds:
                attempt, seed = _search(env, tape, found.resets, attempt, tolerance)
                if seed is None:
                    nowhere = Departure(0, "everything, whatever seed it began with,", np.inf)
                    yield Replayed(name, None, len(tape.actions), nowhere, False)
                    continue
                tape = replace(tape, seed=seed)
            yield compare(name, tape, play_again(env, tape), tolerance)


def compare(name: str, tape: Tape, again: Tape, tolerance: float) -> Replayed:
    """Compare an episode with its recording."""
    if not tape.observations:
        raise SpecpolicyError(f"{name} observes images alone: nothing can be compared")
    missing = [key for key in tape.observations if key not in again.observations]
    if missing:
        raise SpecpolicyError(f"{name} observes '{missing[0]}', and the task no longer does")
    played = {key: again.observations[key][: len(rows)] for key, rows in tape.observations.items()}
    found = departure(tape.observations, played, tolerance)
    identical = found is None and departure(tape.observations, played, tolerance=0.0) is None
    return Replayed(name, tape.seed, len(tape.actions), found, identical)


def _tapes(found: Recorded, names: tuple[str, ...], env: gymnasium.Env) -> Iterator[tuple[str, Tape]]:
    if found.resets is None:
        for name in names:
            yield name, read_tape(found.path / DIRECTORY / f"{name}.npz")
        return
    spaces: Any = env.observation_space
    keys = [key for key in observation_keys(found.path) if key in spaces.spaces]
    if not keys:
        raise SpecpolicyError(f"{found.path} has no vectors that {found.task['id']} observes")
    episodes = read_data(found.path, keys).episodes
    for name in names:
        episode = episodes[name]
        executed = episode.action if episode.executed is None else episode.executed
        observed = {key: np.asarray(episode.observation[key]) for key in keys}
        yield name, Tape(found.resets.seeds.get(name, 0), executed, observed)


def _search(env: gymnasium.Env, tape: Tape, resets: Resets, after: int, tolerance: float) -> tuple[int, int | None]:
    """Return the attempt of the collection, and its seed, whose reset observes what the tape begins with."""
    first = {key: rows[:1] for key, rows in tape.observations.items()}
    for attempt, seed in resets.candidates(after):
        observation, _ = env.reset(seed=seed)
        if departure(first, {key: np.asarray(observation[key])[None] for key in first}, tolerance) is None:
            return attempt, seed
    return after, None
