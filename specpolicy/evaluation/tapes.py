"""What was executed and observed in an episode, so that it can be played again and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path
from specpolicy.outputs import file_name

if TYPE_CHECKING:
    import gymnasium

DIRECTORY = "actions"  # in the output of an evaluation with record_actions=true
OBSERVED = "observation/"


@dataclass(frozen=True)
class Tape:
    """One episode of T control steps.

    Attributes:
        seed: of the environment's reset.
        actions: (T, D) as the environment was given them.
        observations: by key (T + 1, ...), from the reset on, or (T, ...) without the last; images are left out.
    """

    seed: int
    actions: np.ndarray
    observations: Mapping[str, np.ndarray]


class Taping:
    """Takes an episode down, beginning with its reset."""

    def __init__(self, seed: int, observation: Mapping[str, Any]):
        self.seed = seed
        self._actions: list[np.ndarray] = []
        self._frames = [vectors(observation)]

    def add(self, action: np.ndarray, observation: Mapping[str, Any]) -> None:
        """Take down a step: the action, and what was observed after it."""
        self._actions.append(np.array(action))
        self._frames.append(vectors(observation))

    def tape(self) -> Tape:
        """Return what was taken down."""
        observations = {key: np.stack([frame[key] for frame in self._frames]) for key in self._frames[0]}
        return Tape(self.seed, np.array(self._actions), observations)


def play_again(env: gymnasium.Env, tape: Tape) -> Tape:
    """Reset an environment by the tape's seed and give it the tape's actions, until they or the episode end.

    Raises:
        SpecpolicyError: the actions are not the environment's.
    """
    space: Any = env.action_space
    if len(tape.actions) and tape.actions.shape[1:] != space.shape:
        raise SpecpolicyError(f"an action on the tape has shape {tape.actions.shape[1:]}, the task's {space.shape}")
    observation, _ = env.reset(seed=tape.seed)
    taping = Taping(tape.seed, observation)
    for action in tape.actions:
        observation, _, terminated, truncated, _ = env.step(action.astype(space.dtype))
        taping.add(action, observation)
        if terminated or truncated:
            break
    return taping.tape()


def tape_path(output: Path, label: str, seed: int) -> Path:
    """Return the file of an episode of an evaluation."""
    return output / DIRECTORY / f"{file_name(label)}-{seed}.npz"


def write_tape(path: Path, tape: Tape) -> None:
    """Write a tape, atomically."""
    observed = {f"{OBSERVED}{key}": values for key, values in tape.observations.items()}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, seed=tape.seed, actions=tape.actions, **observed)  # type: ignore[arg-type]


def read_tape(path: Path) -> Tape:
    """Read a tape.

    Raises:
        SpecpolicyError: the file holds none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            observed = {key.removeprefix(OBSERVED): file[key] for key in file.files if key.startswith(OBSERVED)}
            return Tape(int(file["seed"]), file["actions"], observed)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise SpecpolicyError(f"{path} holds no recorded episode ({type(error).__name__}: {error})") from None


def vectors(observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return what is observed without images, which cameras draw and no physics decides."""
    return {key: np.array(value) for key, value in observation.items() if getattr(value, "ndim", 1) < 3}
