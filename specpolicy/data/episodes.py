"""Episodes as arrays, and the training windows cut from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError

HELD_OUT_SEED = 20_240  # which episodes are held out does not depend on the run


@dataclass
class Sequences:
    """All training windows of a data set: observation {key: (N, To, D_key)} and action (N, H, D), float32."""

    observation: dict[str, Tensor]
    action: Tensor

    def __len__(self) -> int:
        return len(self.action)

    def ranges(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(minimum, maximum) of each dimension, by key; the actions under 'action'."""
        arrays = {**self.observation, "action": self.action}
        return {key: (x.flatten(0, 1).amin(0), x.flatten(0, 1).amax(0)) for key, x in arrays.items()}


@dataclass(frozen=True)
class Episode:
    """One demonstration of T control steps: actions (T, D) and observations {key: (T, D_key)}."""

    action: np.ndarray
    observation: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.action)


def cut(episodes: Sequence[Episode], n_obs_steps: int, horizon: int) -> Sequences:
    """All overlapping windows of all episodes.

    Window i of an episode holds the observations i - To + 1 ... i and the actions i - To + 1 ... i - To + H; beyond
    both ends of an episode its first and last entries are repeated, as robomimic and LeRobot do.
    """
    frames: dict[str, list[np.ndarray]] = {key: [] for key in episodes[0].observation}
    actions = []
    for episode in episodes:
        step, last = np.arange(len(episode))[:, None], len(episode) - 1
        seen = np.clip(step + np.arange(1 - n_obs_steps, 1), 0, last)
        for key, values in episode.observation.items():
            frames[key].append(values[seen])
        actions.append(episode.action[np.clip(step + np.arange(1 - n_obs_steps, 1 - n_obs_steps + horizon), 0, last)])
    return Sequences({key: _tensor(windows) for key, windows in frames.items()}, _tensor(actions))


def held_out(count: int, share: float, path: Path | str) -> list[int]:
    """Numbers of the episodes to validate on where the data set does not say which: at least one, always the same.

    Raises:
        SpecpolicyError: there is one episode alone, or the share is none.
    """
    if not 0 < share < 1:
        raise SpecpolicyError(f"validation={share}: expected a share between 0 and 1")
    if count < 2:
        raise SpecpolicyError(f"{path} has one episode: at least two are needed, one of them to validate on")
    number = min(max(1, round(share * count)), count - 1)
    rng = np.random.default_rng(HELD_OUT_SEED)
    return sorted(int(episode) for episode in rng.choice(count, number, replace=False))


def check_finite(values: np.ndarray, name: str, path: Path | str) -> None:
    """Raise a clear error if there is a NaN or an infinity."""
    if not np.isfinite(values).all():
        raise SpecpolicyError(f"{path}: {name} has values that are not finite")


def _tensor(windows: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(windows).astype(np.float32, copy=False))
