"""diffusion_policy's replay buffers: a zarr group, as a directory or in a zip file. Needs the extra `data`.

`data/<name>` holds the entries of all episodes one after the other (N, ...), `data/action` the actions, and
`meta/episode_ends` the end of each episode. Entries of any shape, except images, are read as flat vectors.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.data.episodes import DataSet, Episode, as_vectors
from specpolicy.data.zarr_arrays import Description, Files, Folder, Zip
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import one_line

ACTION, ENDS = "action", "meta/episode_ends"
LARGEST = 1024  # numbers in an observation; images have more
# Words in names of arrays that divide episodes. diffusion_policy writes none.
PARTS = {"train", "training", "valid", "val", "validation", "test", "split", "splits", "mask"}


def read(path: str | Path, observation_keys: Sequence[str]) -> DataSet:
    """See `specpolicy.data.dataset.read_data`. A buffer names no parts and no rate."""
    buffer = _opened(path)
    known = buffer.vectors()
    for key in observation_keys:
        if key not in known or key == ACTION:
            raise SpecpolicyError(
                f"{path} has no vectors data/{key} (it has {', '.join(one for one in known if one != ACTION)}): "
                "give task.observation_keys"
            )
    ends = buffer.ends()
    arrays = {key: buffer.vector(key, int(ends[-1])) for key in (ACTION, *observation_keys)}
    episodes = {
        str(number): Episode(arrays[ACTION][start:end], {key: arrays[key][start:end] for key in observation_keys})
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    }
    return DataSet(Path(path), episodes, {})


def observation_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.observation_keys`."""
    return [key for key in _opened(path).vectors() if key != ACTION]


def _opened(path: str | Path) -> "_Buffer":
    """Open the buffer and check its metadata."""
    try:
        files: Files = Zip(Path(path)) if Path(path).is_file() else Folder(Path(path))
        missing = [name for name in (f"data/{ACTION}", ENDS) if files.describe(name) is None]
    # A damaged store raises several kinds of errors: ValueError, OSError, BadZipFile.
    except Exception as error:
        raise SpecpolicyError(f"{path} is no replay buffer of diffusion_policy: {one_line(error)}") from None
    if missing:
        raise SpecpolicyError(f"{path} is no replay buffer of diffusion_policy: it lacks {' and '.join(missing)}")
    for name in files.children("meta"):
        if PARTS & set(re.split("[^a-z]+", name.casefold())):
            raise SpecpolicyError(
                f"{path}: meta/{name} seems to say which episodes are for what, and is not understood: remove it, "
                "and the episodes that are not to be learned from"
            )
    return _Buffer(files, path)


@dataclass
class _Buffer:
    """The arrays of an open store."""

    files: Files
    path: str | Path

    def vectors(self) -> list[str]:
        """Return the names of the entries, except images, sorted."""
        names = self.files.children("data")
        found = {name: self._describe(f"data/{name}") for name in names if not name.startswith((".", "zarr."))}
        return [
            name
            for name, array in found.items()
            if array is not None and array.kind and array.shape and math.prod(array.shape[1:]) <= LARGEST
        ]

    def ends(self) -> np.ndarray:
        """Return the end of each episode (episodes,)."""
        ends = self._read(ENDS)
        if ends.ndim == 1 and not len(ends):
            raise SpecpolicyError(f"{self.path} has no episodes")
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or (np.diff(ends, prepend=0) <= 0).any():
            raise SpecpolicyError(f"{self.path}: {ENDS} must be rising whole numbers")
        return ends

    def vector(self, key: str, rows: int) -> np.ndarray:
        """Return an entry as (N, D) float32."""
        array = self._describe(f"data/{key}")
        shape = array.shape if array is not None else ()
        if not shape or shape[0] != rows:
            found = shape[0] if shape else "no"
            raise SpecpolicyError(f"{self.path}: data/{key} has {found} rows, {ENDS} says {rows}")
        return as_vectors(self._read(f"data/{key}").reshape(rows, -1), f"data/{key}", self.path)

    def _describe(self, name: str) -> Description | None:
        try:
            return self.files.describe(name)
        except SpecpolicyError as error:
            raise SpecpolicyError(f"{self.path}: {error}") from None
        except Exception as error:  # a damaged member of a zip
            raise SpecpolicyError(f"{self.path}: {name} cannot be read ({one_line(error)})") from None

    def _read(self, name: str) -> np.ndarray:
        import zarr
        from zarr.storage import LocalStore, ZipStore

        array = self._describe(name)
        assert array is not None  # it was there when the buffer was opened, or is one of its vectors
        try:
            self.files.check(name, array)
            store: Any = (
                ZipStore(str(self.path)) if Path(self.path).is_file() else LocalStore(self.path, read_only=True)
            )
            # Trust its own metadata, not those of the whole store.
            opened: Any = zarr.open_array(store, path=name, mode="r", zarr_format=2 if array.version == 2 else 3)
            values = np.asarray(opened[:])
            store.close()
            return values
        except SpecpolicyError as error:
            raise SpecpolicyError(f"{self.path}: {error}") from None
        except Exception as error:  # a damaged chunk; each codec raises its own errors
            reason = one_line(f"{type(error).__name__}: {error}")
            raise SpecpolicyError(f"{self.path}: {name} cannot be read ({reason})") from None
