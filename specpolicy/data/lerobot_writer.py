"""Demonstrations as a LeRobot data set, version 3.0, which LeRobot 0.4 and later load. Needs the extra `data`.

meta/info.json                               features, counts, splits
meta/stats.json                              minimum, maximum, mean, standard deviation, quantiles of each feature
meta/tasks.parquet                           task_index by the task's name
meta/episodes/chunk-000/file-000.parquet     one row an episode: its length, the place of its frames, its statistics
meta/specpolicy.json                         ours: the observations in each part of the state vectors; settings; the
                                             seed of each episode's reset
data/chunk-000/file-000.parquet, ...         one row a frame

Images of our observations are features of their own, `observation.images.<camera>`, see `lerobot_images`. Of the
others, LeRobot's policies know the robot's own state, `observation.state`, and `observation.environment_state`: our
observations are joined to these two vectors.
"""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.data.lerobot_images import Levels, description, packed
from specpolicy.data.lerobot_layout import EXECUTED, Columns, Layout, layout_of, parts_of, read_frames
from specpolicy.data.robomimic_hdf5 import reset_seed
from specpolicy.errors import SpecpolicyError
from specpolicy.files import writing

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "v3.0"
UNFINISHED = ".specpolicy"  # ends the name of a directory that is renamed when it is complete
FILES_PER_CHUNK, FILE_MEGABYTES = 1000, 100
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SCALARS = {  # feature: dtype
    "next.reward": "float32",
    "next.done": "bool",
    "next.success": "bool",
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def write_lerobot(
    path: Path,
    parts: Sequence[Path],
    env_args: Mapping[str, Any],
    attributes: Mapping[str, Any],
    valid: Sequence[int],
    hz: float,
) -> int:
    """Join part files (see `robomimic_hdf5.write_part`) into one data set, atomically; return its number of frames.

    The demonstrations for validation come last, as the split `valid`.

    Args:
        path: the directory to write; nothing may be there.
        parts: part files with data.
        env_args: robomimic's description of the environment.
        attributes: stored with `env_args` in meta/specpolicy.json; `task` names the task.
        valid: numbers of the demonstrations for validation.
        hz: frames per second.
    """
    with writing(path):
        return _write(path, parts, env_args, attributes, valid, hz)


def _write(
    path: Path,
    parts: Sequence[Path],
    env_args: Mapping[str, Any],
    attributes: Mapping[str, Any],
    valid: Sequence[int],
    hz: float,
) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-", suffix=UNFINISHED))
    try:
        order = [number for number in range(len(parts)) if number not in set(valid)] + sorted(valid)
        task = str(attributes["task"].get("name", "task"))
        layout = layout_of(parts[0])
        writer = _Writer(temporary, layout, task, hz)
        for number in order:
            writer.add(read_frames(parts[number], layout))
        ours = {"format": 1, "env_args": dict(env_args), **attributes, "observation": parts_of(layout)}
        ours["reset_seeds"] = [reset_seed(parts[number]) for number in order]
        if layout.images:
            ours["images"] = {key: feature for feature, key in layout.images.items()}
        frames = writer.finish(len(parts) - len(valid), ours)
        temporary.chmod(0o755)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return frames


def _remove_unfinished(path: Path) -> None:
    """Delete what killed runs have written of the data set `path`, which this run holds."""
    for place in path.parent.glob(f".{glob.escape(path.name)}-{'?' * 8}{UNFINISHED}"):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)


def read_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of the collection that wrote a data set, None if specpolicy did not write it."""
    try:
        return json.loads((path / "meta" / "specpolicy.json").read_text(encoding="utf-8")).get("collection")
    except (OSError, ValueError, AttributeError):
        raise SpecpolicyError(f"{path} exists and is no data set of ours; choose another output") from None


class _Writer:
    """Writes the files of one data set into an empty directory."""

    def __init__(self, root: Path, layout: Layout, task: str, hz: float):
        self._root, self._layout, self._task = root, layout, task
        self._hz: float = int(hz) if float(hz).is_integer() else hz
        self._rows: list[dict[str, Any]] = []
        self._frames: list[Columns] = []  # without the images
        self._levels = {feature: Levels() for feature in layout.images}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._total = self._file = self._bytes = 0
        self._writer: Any = None

    def add(self, columns: Columns) -> None:
        """Append an episode."""
        from pyarrow import parquet

        length, number = len(columns["action"]), len(self._rows)
        step = np.arange(length)
        columns = {
            **columns,
            "timestamp": (step / self._hz).astype(np.float32),
            "frame_index": step,
            "episode_index": np.full(length, number),
            "index": self._total + step,
            "task_index": np.zeros(length, np.int64),
        }
        images = {feature: columns.pop(feature) for feature in self._layout.images}
        levels = {feature: Levels.of(values) for feature, values in images.items()}
        table = _table(columns)
        for feature, values in images.items():
            table = table.append_column(feature, packed(values))
            self._shapes[feature] = values.shape[1:]
            self._levels[feature] += levels[feature]
        size = table.nbytes
        if self._writer is not None and self._bytes + size > FILE_MEGABYTES * 2**20:
            self._writer.close()
            self._writer, self._bytes, self._file = None, 0, self._file + 1
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._path("data", self._file), table.schema)
        self._writer.write_table(table)
        self._bytes += size
        statistics = {feature: _statistics(values) for feature, values in columns.items()}
        statistics |= {feature: one.statistics(QUANTILES) for feature, one in levels.items()}
        self._rows.append(
            {
                "episode_index": number,
                "tasks": [self._task],
                "length": length,
                "data/chunk_index": self._file // FILES_PER_CHUNK,
                "data/file_index": self._file % FILES_PER_CHUNK,
                "dataset_from_index": self._total,
                "dataset_to_index": self._total + length,
                **{
                    f"stats/{feature}/{name}": value
                    for feature, entries in statistics.items()
                    for name, value in entries.items()
                },
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._frames.append(columns)
        self._total += length

    def finish(self, training: int, ours: Mapping[str, Any]) -> int:
        """Write the files that describe the data; return the number of frames. `training`: episodes of the split
        `train`."""
        import pyarrow as pa
        from pyarrow import parquet

        self._writer.close()
        parquet.write_table(pa.Table.from_pylist(self._rows), self._path("meta/episodes", 0))
        parquet.write_table(_tasks(self._task), self._root / "meta" / "tasks.parquet")
        everything = {name: np.concatenate([one[name] for one in self._frames]) for name in self._frames[0]}
        statistics = {name: _statistics(values) for name, values in everything.items()}
        statistics |= {feature: levels.statistics(QUANTILES) for feature, levels in self._levels.items()}
        self._json("stats.json", statistics)
        count = len(self._rows)
        splits = {"train": f"0:{training}"}
        if training < count:
            splits["valid"] = f"{training}:{count}"
        self._json(
            "info.json",
            {
                "codebase_version": VERSION,
                "robot_type": None,
                "total_episodes": count,
                "total_frames": self._total,
                "total_tasks": 1,
                "chunks_size": FILES_PER_CHUNK,
                "data_files_size_in_mb": FILE_MEGABYTES,
                "video_files_size_in_mb": 200,
                "fps": self._hz,
                "splits": splits,
                "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                "video_path": None,
                "features": self._features(everything),
            },
        )
        self._json("specpolicy.json", ours)
        return self._total

    def _features(self, columns: Columns) -> dict[str, Any]:
        vectors: dict[str, Any] = {}
        for feature, widths in self._layout.vectors.items():
            names = [f"{key}.{entry}" for key, width in widths.items() for entry in range(width)]
            vectors[feature] = {"dtype": "float32", "shape": [len(names)], "names": names}
        for feature in ("action", EXECUTED):
            vectors[feature] = {"dtype": "float32", "shape": [columns[feature].shape[1]], "names": None}
        vectors |= {feature: description(shape) for feature, shape in self._shapes.items()}
        return vectors | {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in SCALARS.items()}

    def _path(self, directory: str, number: int) -> Path:
        chunk, file = divmod(number, FILES_PER_CHUNK)
        path = self._root / directory / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _json(self, name: str, content: Any) -> None:
        path = self._root / "meta" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _table(columns: Columns) -> pa.Table:
    import pyarrow as pa

    arrays = {
        name: pa.array(values)
        if values.ndim == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        for name, values in columns.items()
    }
    return pa.table(arrays)


def _tasks(task: str) -> pa.Table:
    """Return the table of tasks. LeRobot reads it with pandas and looks tasks up by the index that pandas' metadata
    names."""
    import pyarrow as pa

    index = "__index_level_0__"
    column = {"metadata": None}
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", **column}
    name = {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", **column}
    pandas = {"index_columns": [index], "column_indexes": [], "columns": [number, name]}
    table = pa.table({"task_index": pa.array([0]), index: pa.array([task])})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _statistics(values: np.ndarray) -> dict[str, list[float] | list[int]]:
    """Return statistics of each entry over the frames (N,) or (N, D)."""
    numbers = values.reshape(len(values), -1).astype(np.float64)
    found = {
        "min": numbers.min(axis=0),
        "max": numbers.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        **dict(zip(QUANTILES, np.quantile(numbers, list(QUANTILES.values()), axis=0), strict=True)),
    }
    return {**{name: entry.tolist() for name, entry in found.items()}, "count": [len(values)]}
