"""Images of a data set: they stay on disk until a window of them is requested.

A data set with cameras is larger than memory once its images are floating-point numbers. So nothing here holds more
than the last request and, if wanted, a cache of bounded size. All objects can be pickled; each process opens the files
for itself.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPE = np.dtype(np.uint8)


class Source(ABC):
    """Files that hold images; each process opens them when it first reads.

    After a fork the child must not read through the parent's handle, because both would share its position in the file.
    """

    def __init__(self) -> None:
        self._opened: Any = None
        self._owner = -1
        self.digests: dict[tuple[str, bytes], str] = {}  # see `Frames.digest`

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_owner": -1, "digests": {}}

    @property
    def opened(self) -> Any:
        """The result of `open` in this process."""
        if self._owner != os.getpid():
            self._opened, self._owner = self.open(), os.getpid()
        return self._opened

    @abstractmethod
    def open(self) -> Any:
        """Open the files."""

    @abstractmethod
    def read(self, where: str, steps: np.ndarray) -> np.ndarray:
        """Read images.

        Args:
            where: episode and camera, as the source names them.
            steps: (n,) numbers of the images, rising, without repetition.

        Returns:
            (n, H, W, C) uint8.

        Raises:
            SpecpolicyError: they cannot be read.
        """


class Frames:
    """The images of one camera in one episode, (T, H, W, C) uint8, read when they are indexed.

    Args:
        source: the files that hold them.
        where: episode and camera, as the source names them.
        steps: (T,) numbers of the images in the source, rising.
        size: (H, W, C).
    """

    dtype = DTYPE
    ndim = 4

    def __init__(self, source: Source, where: str, steps: np.ndarray, size: tuple[int, int, int]):
        self.source, self.where, self.steps, self.size = source, where, steps, size

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C)."""
        return len(self.steps), *self.size

    def every(self, stride: int) -> "Frames":
        """Return every `stride`-th image, beginning with the first."""
        return Frames(self.source, self.where, self.steps[::stride], self.size)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read the images at `index`: a number, a slice, or an array of numbers of any shape and order."""
        wanted = self.steps[index]
        unique, places = np.unique(wanted, return_inverse=True)
        return self.source.read(self.where, unique)[places.reshape(wanted.shape)]

    def feed(self, digest: Any) -> None:
        """Feed all images to a hash of `hashlib`, and note their own hash: reading them is what takes the time."""
        values = np.ascontiguousarray(self[:]).tobytes()
        digest.update(values)
        self.source.digests[self.where, self.steps.tobytes()] = hashlib.sha256(values).hexdigest()

    @property
    def digest(self) -> str:
        """The hash of all images; they are read if no hash was fed with them yet."""
        own = self.where, self.steps.tobytes()
        if own not in self.source.digests:
            self.feed(hashlib.sha256())
        return self.source.digests[own]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all images of the episode."""
        return np.asarray(self[:], dtype=dtype)


@dataclass
class Cache:
    """The most recently read images, at most `most_bytes` of them. One for each process."""

    most_bytes: int

    def __post_init__(self) -> None:
        self._images: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self.nbytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"most_bytes": self.most_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.most_bytes = state["most_bytes"]
        self.__post_init__()

    def get(self, key: tuple[int, int]) -> np.ndarray | None:
        """Return the image of (episode, step); None if it is not in the cache."""
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
        return image

    def put(self, key: tuple[int, int], image: np.ndarray) -> None:
        """Keep an image; drop the least recently used ones."""
        if image.nbytes > self.most_bytes or key in self._images:
            return
        self._images[key] = image
        self.nbytes += image.nbytes
        while self.nbytes > self.most_bytes:
            _, dropped = self._images.popitem(last=False)
            self.nbytes -= dropped.nbytes


class ImageWindows:
    """The images of all training windows of one camera, (N, To, H, W, C) uint8, read when windows are asked for.

    Args:
        episodes: the images of each episode.
        seen: for each episode (N_i, To), which of its images its windows see.
        cache_bytes: memory for images that were read, in each process; 0 keeps none.
    """

    dtype = torch.uint8

    def __init__(self, episodes: Sequence[Frames], seen: Sequence[np.ndarray], cache_bytes: int = 0):
        self.episodes = list(episodes)
        counts = [len(windows) for windows in seen]
        self._episode = np.repeat(np.arange(len(counts)), counts)
        self._seen = np.concatenate(seen)
        self.cache = Cache(cache_bytes)

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def size(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.episodes[0].size

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, To, H, W, C)."""
        return *self._seen.shape, *self.size

    def __getitem__(self, rows: Any) -> Tensor:
        """Read the images of windows: (n, To, H, W, C) bytes for an array or a slice of rows, one less for a number."""
        rows = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        episode, seen = self._episode[rows], self._seen[rows]
        out = np.empty((*seen.shape, *self.size), np.uint8)
        flat, owners = out.reshape(-1, *self.size), np.repeat(episode, self._seen.shape[1])
        steps = seen.ravel()
        for number in np.unique(owners):
            places = np.flatnonzero(owners == number)
            flat[places] = self._read(int(number), steps[places])
        return torch.from_numpy(out)

    def _read(self, number: int, steps: np.ndarray) -> np.ndarray:
        """Return images of one episode, from the cache where it has them."""
        frames = self.episodes[number]
        if not self.cache.most_bytes:
            return frames[steps]
        unique, places = np.unique(steps, return_inverse=True)
        found = [self.cache.get((number, int(step))) for step in unique]
        missing = [step for step, image in zip(unique, found, strict=True) if image is None]
        read = iter(frames[np.array(missing)] if missing else ())
        images = []
        for step, image in zip(unique, found, strict=True):
            if image is None:
                image = np.array(next(read))
                self.cache.put((number, int(step)), image)
            images.append(image)
        return np.stack(images)[places.ravel()]
