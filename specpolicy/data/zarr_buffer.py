"""diffusion_policy's replay buffers: a zarr group, as a directory or in a zip file. Needs the extra `data`.

`data/<name>` holds the entries of all episodes one after the other (N, ...), `data/action` the actions, and
`meta/episode_ends` the end of each episode. Entries of any shape that is no image are read as flat vectors.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.data.episodes import DataSet, Episode, as_vectors
from specpolicy.errors import SpecpolicyError

ACTION = "action"
LARGEST = 1024  # numbers in an observation; images have more
# Words in the names of what divides episodes. diffusion_policy has nothing of the kind.
PARTS = {"train", "training", "valid", "val", "validation", "test", "split", "splits", "mask"}


def read(path: str | Path, observation_keys: Sequence[str]) -> DataSet:
    """See `specpolicy.data.dataset.read_data`. A buffer names no parts and no rate."""
    with _opened(path) as (data, ends):
        known = _vectors(data)
        for key in observation_keys:
            if key not in known or key == ACTION:
                raise SpecpolicyError(
                    f"{path} has no vectors data/{key} (it has {', '.join(one for one in known if one != ACTION)}): "
                    "give task.observation_keys"
                )
        arrays = {key: _read(data, key, int(ends[-1]), path) for key in (ACTION, *observation_keys)}
    episodes = {
        str(number): Episode(arrays[ACTION][start:end], {key: arrays[key][start:end] for key in observation_keys})
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    }
    return DataSet(Path(path), episodes, {})


def observation_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.observation_keys`."""
    with _opened(path) as (data, _):
        return [key for key in _vectors(data) if key != ACTION]


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, np.ndarray]]:
    """The group `data` and the ends of the episodes, checked."""
    import zarr
    from zarr.storage import ZipStore

    with ExitStack() as cleanup:
        try:
            store: Any = ZipStore(str(path), mode="r") if Path(path).is_file() else str(path)
            root: Any = zarr.open_group(store, mode="r")
            if not isinstance(store, str):
                cleanup.callback(store.close)
            data, ends = root["data"], np.asarray(root["meta/episode_ends"][:])
            data[ACTION]
            described = sorted(root["meta"].array_keys()) + sorted(root["meta"].group_keys())
        # A damaged store shows in many ways: KeyError, ValueError, OSError, BadZipFile, errors of the codecs.
        except Exception as error:
            raise SpecpolicyError(
                f"{path} is no replay buffer of diffusion_policy ({type(error).__name__}: {error}): "
                "expected data/action and meta/episode_ends"
            ) from None
        for name in described:
            if PARTS & set(re.split("[^a-z]+", name.casefold())):
                raise SpecpolicyError(
                    f"{path}: meta/{name} seems to say which episodes are for what, and is not understood: remove it, "
                    "and the episodes that are not to be learned from"
                )
        if ends.ndim == 1 and not len(ends):
            raise SpecpolicyError(f"{path} has no episodes")
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or (np.diff(ends, prepend=0) <= 0).any():
            raise SpecpolicyError(f"{path}: meta/episode_ends must be rising whole numbers")
        yield data, ends


def _vectors(data: Any) -> list[str]:
    """Names of the entries that are no images, sorted."""
    arrays = {name: array for name, array in data.arrays()}
    return sorted(
        name
        for name, array in arrays.items()
        if array.dtype.kind in "fiub" and len(array.shape) > 0 and np.prod(array.shape[1:]) <= LARGEST
    )


def _read(data: Any, key: str, rows: int, path: str | Path) -> np.ndarray:
    """An entry as (N, D) float32."""
    array = data[key]
    if not array.shape or array.shape[0] != rows:
        found = array.shape[0] if array.shape else "no"
        raise SpecpolicyError(f"{path}: data/{key} has {found} rows, meta/episode_ends says {rows}")
    try:
        values = np.asarray(array[:])
    except Exception as error:  # a chunk that is damaged, in whatever way its codec says so
        raise SpecpolicyError(f"{path}: data/{key} cannot be read ({type(error).__name__}: {error})") from None
    return as_vectors(values.reshape(rows, -1), f"data/{key}", path)
