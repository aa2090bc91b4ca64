"""Episodes as arrays, and the training windows cut from them: one definition for every kind of data set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import LENGTH


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
    """One demonstration of T control steps: actions (T, D) and observations {key: (T, D_key)}, float32."""

    action: np.ndarray
    observation: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.action)

    def every(self, stride: int) -> "Episode":
        """Keep every `stride`-th frame with its action, from the first one on."""
        return Episode(self.action[::stride], {key: values[::stride] for key, values in self.observation.items()})


@dataclass(frozen=True)
class DataSet:
    """A data set, read and checked.

    Attributes:
        path: its place.
        episodes: by name, in the order of their windows; none is empty.
        parts: names of episodes by the name of the part, as the data set itself divides them; {} if it does not.
        hz: control steps per second; None if unknown.
    """

    path: Path
    episodes: Mapping[str, Episode]
    parts: Mapping[str, Sequence[str]]
    hz: float | None = None

    def __post_init__(self) -> None:
        if not self.episodes:
            raise SpecpolicyError(f"{self.path} has no episodes")
        for name, episode in self.episodes.items():
            if not len(episode):
                raise SpecpolicyError(f"{self.path}: episode {name} has no steps: remove it from the data set")

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the episodes; a copy of the data elsewhere has the same one."""
        digest = hashlib.sha256()
        for episode in self.episodes.values():
            for key, values in [*sorted(episode.observation.items()), ("action", episode.action)]:
                digest.update(f"{key} {values.dtype} {values.shape}".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:LENGTH]


def cut(episodes: Sequence[Episode], n_obs_steps: int, horizon: int, pad_after: int | None = None) -> Sequences:
    """Cut all overlapping windows from all episodes.

    Window i of an episode holds the observations i - To + 1 ... i and the actions i - To + 1 ... i - To + H. Beyond
    both ends of an episode its first and last entries are repeated.

    Args:
        episodes: to cut.
        n_obs_steps: To.
        horizon: H.
        pad_after: most actions of a window beyond the end of its episode. None: horizon - n_obs_steps, which gives a
            window for every frame, as in robomimic. n_action_steps - 1, as in diffusion_policy and LeRobot, leaves out
            the windows in which an executed action would be a repeated one.

    Raises:
        SpecpolicyError: lengths that make no window; no episode is long enough.
    """
    most = horizon - n_obs_steps
    if n_obs_steps < 1 or most < 0:
        raise SpecpolicyError(f"horizon={horizon}, n_obs_steps={n_obs_steps}: expected 1 <= n_obs_steps <= horizon")
    if pad_after is not None and not 0 <= pad_after <= most:
        raise SpecpolicyError(
            f"pad_after={pad_after}: expected 0 to {most} (horizon - n_obs_steps), or null for {most}"
        )
    left_out = 0 if pad_after is None else most - pad_after
    frames: dict[str, list[np.ndarray]] = {key: [] for key in episodes[0].observation}
    actions = []
    for episode in episodes:
        step, last = np.arange(max(0, len(episode) - left_out))[:, None], len(episode) - 1
        seen = np.clip(step + np.arange(1 - n_obs_steps, 1), 0, last)
        for key, values in episode.observation.items():
            frames[key].append(values[seen])
        actions.append(episode.action[np.clip(step + np.arange(1 - n_obs_steps, 1 - n_obs_steps + horizon), 0, last)])
    if not sum(map(len, actions)):
        raise SpecpolicyError(
            f"no episode is longer than {left_out} steps, so that pad_after={pad_after} leaves no window: "
            "raise pad_after or lower the horizon"
        )
    return Sequences({key: _tensor(windows) for key, windows in frames.items()}, _tensor(actions))


def as_vectors(values: np.ndarray, name: str, path: Path | str) -> np.ndarray:
    """Return numbers (N, D) as float32.

    Raises:
        SpecpolicyError: they are not real numbers, or not finite as float32.
    """
    if values.dtype.kind not in "biuf":
        raise SpecpolicyError(f"{path}: {name} holds {values.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # too large numbers become infinite, which the next line reports
        vectors = values.astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise SpecpolicyError(f"{path}: {name} has values that are not finite")
    return vectors


def _tensor(windows: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(windows).astype(np.float32, copy=False))
