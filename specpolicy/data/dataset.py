"""Training windows from any supported data set: robomimic's HDF5, a LeRobot data set, a zarr replay buffer.

LeRobot does not install beside robosuite (it needs numpy 2), so its files are read with pyarrow; diffusion_policy's
replay buffers with zarr, robomimic's files with h5py. Each reader returns the episodes. Splits and windows are defined
once for all three.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specpolicy.data.episodes import DataSet, Sequences, cut
from specpolicy.data.parts import choose
from specpolicy.errors import SpecpolicyError

__all__ = ["DataSet", "Sequences", "image_keys", "load_sequences", "observation_keys", "read_data", "windows"]

READERS = {"robomimic": "robomimic_dataset", "lerobot": "lerobot_dataset", "zarr": "zarr_buffer"}


def load_sequences(
    path: str | Path,
    observation_keys: Sequence[str],
    n_obs_steps: int,
    horizon: int,
    split: str | None = "train",
    validation: float = 0.1,
    pad_after: int | None = None,
) -> Sequences:
    """Cut every demonstration of `split` into overlapping windows (see `specpolicy.data.episodes.cut`).

    Args:
        path: an HDF5 file of robomimic, the directory of a LeRobot data set, or a `.zarr` of diffusion_policy.
        split: "train" or "valid", None for all; or another part named by the data set.
        validation: share of the episodes that are "valid" where the data set names none.
        pad_after: most actions of a window beyond the end of its episode; None: horizon - n_obs_steps.

    Raises:
        SpecpolicyError: the data cannot be used.
    """
    return windows(read_data(path, observation_keys), n_obs_steps, horizon, split, validation, pad_after)


def read_data(path: str | Path, observation_keys: Sequence[str]) -> DataSet:
    """Read and check all episodes of a data set, with its parts and its rate."""
    if not observation_keys:
        raise SpecpolicyError("no observations to read: name some in task.observation_keys")
    return _reader(path).read(path, observation_keys)


def windows(
    data: DataSet,
    n_obs_steps: int,
    horizon: int,
    split: str | None = "train",
    validation: float = 0.1,
    pad_after: int | None = None,
    stride: int = 1,
    cache_bytes: int = 0,
) -> Sequences:
    """Cut windows as `load_sequences` does, from data already read; every `stride`-th frame of an episode.

    Images stay on the disk until `Sequences.seen` asks for windows. Those read last are kept, for each camera and
    process, as long as they take no more than `cache_bytes`.
    """
    episodes = [data.episodes[name] for name in choose(data, split, validation)]
    return cut([episode.every(stride) for episode in episodes], n_obs_steps, horizon, pad_after, cache_bytes)


def observation_keys(path: str | Path) -> list[str]:
    """Return the keys of the low-dimensional observations of a data set.

    Raises:
        SpecpolicyError: there are none.
    """
    keys = _reader(path).observation_keys(path)
    if not keys:
        raise SpecpolicyError(f"{path} holds no observations that are vectors: name images in task.observation_keys")
    return keys


def image_keys(path: str | Path) -> list[str]:
    """Return the keys of the images of a data set, none if it has no images that are read here."""
    reader = _reader(path)
    return reader.image_keys(path) if hasattr(reader, "image_keys") else []


def data_kind(path: str | Path) -> str:
    """Return the key in `READERS` for the data at `path`."""
    path = Path(path)
    if not path.exists():
        raise SpecpolicyError(f"no demonstrations at {path}: record some with 'specpolicy collect', or give data=PATH")
    if not path.is_dir():
        return "zarr" if path.suffix == ".zip" else "robomimic"
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    if any((path / name).is_file() for name in (".zgroup", "zarr.json")):
        return "zarr"
    raise SpecpolicyError(
        f"{path} holds no data set: expected a LeRobot directory (meta/info.json), a zarr replay buffer (.zgroup), "
        "or the path of an HDF5 file"
    )


def _reader(path: str | Path) -> Any:
    return importlib.import_module(f"specpolicy.data.{READERS[data_kind(path)]}")
