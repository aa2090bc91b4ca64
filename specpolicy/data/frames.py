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


class Cache:
    """The most recently read images of one size, at most `most_bytes` of them. One for each process.

    They lie in one block of memory. As arrays of their own, made between the far larger arrays of training steps, they
    would leave holes between them that fit nothing, and a process would take many times `most_bytes`.

    Args:
        most_bytes: memory for images; what is not used costs nothing.
        most_images: how many there are at all.
    """

    def __init__(self, most_bytes: int, most_images: int):
        self.most_bytes, self.most_images = most_bytes, most_images
        self._block: np.ndarray | None = None  # (places, H, W, C)
        self._places: OrderedDict[tuple[int, int], int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"most_bytes": self.most_bytes, "most_images": self.most_images}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def nbytes(self) -> int:
        """Bytes of the images that it holds."""
        return 0 if self._block is None else len(self._places) * self._block[0].nbytes

    def get(self, key: tuple[int, int]) -> np.ndarray | None:
        """Return the image of (episode, step), until the next `put`; None if it is not in the cache."""
        place = self._places.get(key)
        if place is None or self._block is None:
            return None
        self._places.move_to_end(key)
        return self._block[place]

    def put(self, key: tuple[int, int], image: np.ndarray) -> None:
        """Keep a copy of an image, in the place of the least recently used one if there is no other."""
        if image.nbytes > self.most_bytes or key in self._places:
            return
        if self._block is None:
            self._block = np.empty((min(self.most_bytes // image.nbytes, self.most_images), *image.shape), image.dtype)
        place = len(self._places)
        if place == len(self._block):
            _, place = self._places.popitem(last=False)
        self._block[place] = image
        self._places[key] = place


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
        self.cache = Cache(cache_bytes, sum(map(len, self.episodes)))

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
        images = np.empty((len(unique), *self.size), np.uint8)
        missing = []
        for index, step in enumerate(unique):
            image = self.cache.get((number, int(step)))
            if image is None:
                missing.append(index)
            else:
                images[index] = image
        if missing:
            images[missing] = frames[unique[missing]]
            for index in missing:
                self.cache.put((number, int(unique[index])), images[index])
        return images[places.ravel()]
