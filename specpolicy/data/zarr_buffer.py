"""diffusion_policy's replay buffers: a zarr group, as a directory or in a zip file. Needs the extra `data`.

`data/<name>` holds the entries of all episodes one after the other (N, ...), `data/action` the actions, and
`meta/episode_ends` the end of each episode. Entries of any shape that is no image are read as flat vectors.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.data.episodes import Episode, Sequences, check_finite, cut, held_out
from specpolicy.errors import SpecpolicyError

ACTION = "action"
LARGEST = 1024  # numbers in an observation; images have more


def load_sequences(
    path: str | Path,
    observation_keys: Sequence[str],
    n_obs_steps: int,
    horizon: int,
    split: str | None = "train",
    validation: float = 0.1,
) -> Sequences:
    """See `specpolicy.data.dataset.load_sequences`."""
    with _opened(path) as data_and_ends:
        data, ends = data_and_ends
        known = _vectors(data)
        for key in observation_keys:
            if key not in known or key == ACTION:
                raise SpecpolicyError(
                    f"{path} has no vectors data/{key} (it has {', '.join(one for one in known if one != ACTION)}): "
                    "give task.observation_keys"
                )
        arrays = {key: _read(data, key, int(ends[-1]), path) for key in (ACTION, *observation_keys)}
    chosen = _chosen(len(ends), split, validation, path)
    episodes = []
    for number in chosen:
        rows = slice(int(ends[number - 1]) if number else 0, int(ends[number]))
        episodes.append(Episode(arrays[ACTION][rows], {key: arrays[key][rows] for key in observation_keys}))
    return cut(episodes, n_obs_steps, horizon)


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
        # A damaged store shows in many ways: KeyError, ValueError, OSError, BadZipFile, errors of the codecs.
        except Exception as error:
            raise SpecpolicyError(
                f"{path} is no replay buffer of diffusion_policy ({type(error).__name__}: {error}): "
                "expected data/action and meta/episode_ends"
            ) from None
        if ends.ndim != 1 or not len(ends) or ends.dtype.kind not in "iu" or (np.diff(ends, prepend=0) <= 0).any():
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
    """The first rows of an entry as (N, D) float32."""
    array = data[key]
    if array.shape[0] < rows:
        raise SpecpolicyError(f"{path}: data/{key} has {array.shape[0]} rows, meta/episode_ends says {rows}")
    try:
        values = np.asarray(array[:rows], np.float32)
    except Exception as error:  # a chunk that is damaged, in whatever way its codec says so
        raise SpecpolicyError(f"{path}: data/{key} cannot be read ({type(error).__name__}: {error})") from None
    values = values.reshape(rows, -1)
    check_finite(values, f"data/{key}", path)
    return values


def _chosen(count: int, split: str | None, share: float, path: str | Path) -> list[int]:
    if split is None:
        return list(range(count))
    if split not in ("train", "valid"):
        raise SpecpolicyError(f"{path} has no split '{split}': use train or valid")
    valid = set(held_out(count, share, path))
    return [number for number in range(count) if (number in valid) == (split == "valid")]
