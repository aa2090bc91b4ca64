"""Episodes as arrays, and the training windows cut from them: one definition for every kind of data set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specpolicy.data.frames import Frames, ImageWindows
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import LENGTH


@dataclass
class Sequences:
    """All training windows of a data set.

    Attributes:
        observation: vectors by key, (N, To, D_key) float32.
        action: (N, H, D) float32, the labels.
        images: by key, (N, To, H, W, C) bytes, which are read when they are asked for.
        executed: (N, H, D) float32, what was executed in the steps of `action`; None: the data do not say.
    """

    observation: dict[str, Tensor]
    action: Tensor
    images: dict[str, ImageWindows] = field(default_factory=dict)
    executed: Tensor | None = None

    def __len__(self) -> int:
        return len(self.action)

    def seen(self, rows: Any) -> dict[str, Tensor]:
        """Return what windows observe: vectors (n, To, D) float32, and images (n, To, H, W, C) uint8, read now.

        Args:
            rows: numbers of the windows, an array or a tensor, or a slice.
        """
        vectors = {key: values[rows] for key, values in self.observation.items()}
        return {**vectors, **{key: images[rows] for key, images in self.images.items()}}

    def shapes(self) -> dict[str, int | tuple[int, int, int]]:
        """Return the shape of one frame of each key as a policy's configuration has it: D, or (C, H, W) of an image."""
        images = {key: (one.size[2], *one.size[:2]) for key, one in self.images.items()}
        return {**{key: values.shape[-1] for key, values in self.observation.items()}, **images}

    def ranges(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(minimum, maximum) of each dimension, by key; the actions under 'action'."""
        arrays = {**self.observation, "action": self.action}
        return {key: (x.flatten(0, 1).amin(0), x.flatten(0, 1).amax(0)) for key, x in arrays.items()}


@dataclass(frozen=True)
class Episode:
    """One demonstration of T control steps.

    Attributes:
        action: (T, D) float32.
        observation: by key (T, D_key) float32; of a camera its images, which are read when they are asked for.
        executed: (T, D) float32, what was executed where `action` is the label; None: the data do not say.
    """

    action: np.ndarray
    observation: Mapping[str, np.ndarray | Frames]
    executed: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.action)

    def every(self, stride: int) -> "Episode":
        """Keep every `stride`-th frame with its action, from the first one on."""
        observation = {
            key: values.every(stride) if isinstance(values, Frames) else values[::stride]
            for key, values in self.observation.items()
        }
        return Episode(self.action[::stride], observation, None if self.executed is None else self.executed[::stride])


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
            arrays = [*sorted(episode.observation.items()), ("action", episode.action)]
            arrays += [] if episode.executed is None else [("executed_action", episode.executed)]
            for key, values in arrays:
                digest.update(f"{key} {values.dtype} {values.shape}".encode())
                # The images of a training were read for its identity, those of one episode at a time: not again.
                if isinstance(values, Frames):
                    digest.update(values.digest.encode())
                else:
                    digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:LENGTH]


def cut(
    episodes: Sequence[Episode],
    n_obs_steps: int,
    horizon: int,
    pad_after: int | None = None,
    cache_bytes: int = 0,
) -> Sequences:
    """Cut all overlapping windows from all episodes.

    Window i of an episode holds the observations i - To + 1 ... i and the actions i - To + 1 ... i - To + H. Beyond
    both ends of an episode its first and last entries are repeated. Where some episodes say what was executed, the
    labels of the others are taken for it.

    Args:
        episodes: to cut.
        n_obs_steps: To.
        horizon: H.
        pad_after: most actions of a window beyond the end of its episode. None: horizon - n_obs_steps, which gives a
            window for every frame, as in robomimic. n_action_steps - 1, as in diffusion_policy and LeRobot, leaves out
            the windows in which an executed action would be a repeated one.
        cache_bytes: memory for images that were read, for each camera and process; 0 keeps none.

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
    images: dict[str, list[Frames]] = {}
    looked_at, actions, executed = [], [], []
    told = any(episode.executed is not None for episode in episodes)
    for episode in episodes:
        step, last = np.arange(max(0, len(episode) - left_out))[:, None], len(episode) - 1
        seen = np.clip(step + np.arange(1 - n_obs_steps, 1), 0, last)
        looked_at.append(seen)
        for key, values in episode.observation.items():
            if isinstance(values, Frames):
                images.setdefault(key, []).append(values)
            else:
                frames[key].append(values[seen])
        planned = np.clip(step + np.arange(1 - n_obs_steps, 1 - n_obs_steps + horizon), 0, last)
        actions.append(episode.action[planned])
        if told:
            executed.append((episode.action if episode.executed is None else episode.executed)[planned])
    if not sum(map(len, actions)):
        raise SpecpolicyError(
            f"no episode is longer than {left_out} steps, so that pad_after={pad_after} leaves no window: "
            "raise pad_after or lower the horizon"
        )
    vectors = {key: _tensor(windows) for key, windows in frames.items() if key not in images}
    pictures = {key: ImageWindows(found, looked_at, cache_bytes) for key, found in images.items()}
    return Sequences(vectors, _tensor(actions), pictures, _tensor(executed) if told else None)


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
