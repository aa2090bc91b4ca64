"""Training windows from whatever lies at a path: robomimic's HDF5, a LeRobot data set, a zarr replay buffer.

HDF5 is read by robomimic's own reader. LeRobot does not install beside us (it excludes our versions of torch and
diffusers), so its files are read with pyarrow; diffusion_policy's replay buffers with zarr.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specpolicy.data.episodes import Sequences
from specpolicy.errors import SpecpolicyError

__all__ = ["Sequences", "load_sequences", "observation_keys"]

READERS = {"robomimic": "robomimic_dataset", "lerobot": "lerobot_dataset", "zarr": "zarr_buffer"}


def load_sequences(
    path: str | Path,
    observation_keys: Sequence[str],
    n_obs_steps: int,
    horizon: int,
    split: str | None = "train",
    validation: float = 0.1,
) -> Sequences:
    """Cut every demonstration of `split` into overlapping windows (see `specpolicy.data.episodes.cut`).

    Args:
        path: an HDF5 file of robomimic, the directory of a LeRobot data set, or a `.zarr` of diffusion_policy.
        split: "train" or "valid", None for all; in robomimic's files any filter key.
        validation: share of the episodes that are "valid" where the data set does not say which.

    Raises:
        SpecpolicyError: whatever would make the data unusable further on.
    """
    return _reader(path).load_sequences(path, observation_keys, n_obs_steps, horizon, split, validation)


def observation_keys(path: str | Path) -> list[str]:
    """The low-dimensional observations that a data set holds."""
    return _reader(path).observation_keys(path)


def data_kind(path: str | Path) -> str:
    """Which of `READERS` reads what lies at `path`."""
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
