"""LeRobot data sets, versions 2 and 3: the vectors and images in their parquet files. Needs the extra `data`.

Both versions hold the rows of all episodes in `data/**/*.parquet` (2: a file an episode, 3: many in one) and describe
them in `meta/info.json`. A data set of `specpolicy collect format=lerobot` also has `meta/specpolicy.json`, which names
the observations that its state vectors consist of, so they are read under their own names.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.data.bounds import check_table
from specpolicy.data.episodes import DataSet, Episode, as_vectors
from specpolicy.data.frames import Frames
from specpolicy.data.lerobot_layout import EXECUTED
from specpolicy.data.parquet_images import ParquetImages
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_regular, parse, read_json, shown
from specpolicy.rates import parse_hz

INFO, OURS = "meta/info.json", "meta/specpolicy.json"
ACTION = "action"
# feature, first entry, entry after the last one
Slice = tuple[str, int, int]
FROM_VIDEO = "copy the data with LeRobotDataset.create(use_videos=False), as docs/images.md says, or record it so"


@dataclass(frozen=True)
class Feature:
    """Contents of a column: "float32", "video", ... and the shape of an entry, which videos may leave open."""

    dtype: str
    shape: tuple[int | None, ...] | None = None

    @property
    def is_vector(self) -> bool:
        """Whether policies can learn from it."""
        return self.dtype.startswith(("float", "int", "bool", "uint"))

    @property
    def is_image(self) -> bool:
        """Whether its entries are images in the parquet files."""
        return self.dtype == "image"


@dataclass(frozen=True)
class Info:
    """The part of `meta/info.json` needed for reading. `fps` is that of the data set; videos have their own."""

    features: Mapping[str, Feature]
    fps: float | None = None
    splits: Mapping[str, str] | None = None
    total_episodes: int | None = None
    total_frames: int | None = None


def read(path: str | Path, observation_keys: Sequence[str]) -> DataSet:
    """See `specpolicy.data.dataset.read_data`. The parts are the splits of `meta/info.json`."""
    root, info = Path(path), read_info(path)
    images = {key: feature for key in observation_keys if (feature := _image_feature(root, info, key)) is not None}
    slices = {key: _locate(root, info, key) for key in observation_keys if key not in images}
    slices[ACTION] = _whole(info, ACTION)
    if EXECUTED in info.features:
        slices[EXECUTED] = (EXECUTED, 0, slices[ACTION][2])
    columns = read_columns(root, info, {feature for feature, _, _ in slices.values()})
    for key, (feature, start, end) in slices.items():
        width = columns[feature].shape[1]
        if not (0 <= start < end <= width) or (key == feature and end != width):
            raise SpecpolicyError(
                f"{root}: '{key}' should be the entries {start} to {end} of '{feature}', which has {width} of them"
            )
    order = np.lexsort((columns["frame_index"], columns["episode_index"]))
    numbers, starts = np.unique(columns["episode_index"][order], return_index=True)
    promised = info.total_episodes
    if promised is not None and len(numbers) != promised:
        raise SpecpolicyError(
            f"{root} has frames of {len(numbers)} of the {promised} episodes that {INFO} promises: "
            "files are missing, or an episode is empty"
        )
    source = ParquetImages(parquet_files(root))
    episodes = {}
    for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
        if (np.diff(columns["frame_index"][rows]) != 1).any():
            raise SpecpolicyError(f"{root}: the frames of episode {number} are not numbered one after the other")
        seen: dict[str, np.ndarray | Frames] = {
            key: columns[feature][rows, start:end]
            for key, (feature, start, end) in slices.items()
            if key in observation_keys
        }
        for key, feature in images.items():
            seen[key] = Frames(source, feature, rows, source.measure(feature))
        executed = columns[EXECUTED][rows] if EXECUTED in slices else None
        episodes[str(number)] = Episode(columns[ACTION][rows], {key: seen[key] for key in observation_keys}, executed)
    return DataSet(root, episodes, _splits(root, info, episodes), parse_hz(info.fps, f"{root / INFO}: fps"))


def observation_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.observation_keys`."""
    root, info = Path(path), read_info(path)
    return sorted(_own_parts(root)) or [
        key for key, feature in info.features.items() if key.startswith("observation") and feature.is_vector
    ]


def image_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.image_keys`."""
    root, info = Path(path), read_info(path)
    own = _own_images(root)
    return sorted(own) or [key for key, feature in info.features.items() if feature.is_image]


def read_info(path: str | Path) -> Info:
    """Read the needed part of `meta/info.json`."""
    file = Path(path) / INFO
    found = read_json(file)
    version = str(found.get("codebase_version", ""))
    if not version.startswith(("v2.", "v3.")):
        raise SpecpolicyError(f"{file}: version '{version}' is not known (v2.x and v3.x are): convert it with LeRobot")
    known = {name: found[name] for name in Info.__annotations__ if name in found}
    if isinstance(known.get("features"), dict):  # a feature has more entries, such as names
        known["features"] = {
            name: {key: one[key] for key in Feature.__annotations__ if key in one} if isinstance(one, dict) else one
            for name, one in known["features"].items()
        }
    info = parse(Info, known, file)
    if ACTION not in info.features:
        raise SpecpolicyError(f"{file} lists no feature '{ACTION}'")
    return info


def parquet_files(root: Path) -> list[Path]:
    """Return the files with the rows, in the order of the rows."""
    files = sorted((root / "data").rglob("*.parquet"))
    if not files:
        raise SpecpolicyError(f"{root / 'data'} has no parquet files: is the data set downloaded?")
    return files


def read_columns(root: Path, info: Info, names: set[str]) -> dict[str, np.ndarray]:
    """Return columns of all rows, (N, D) for features and (N,) for the indices."""
    from pyarrow import ArrowException, parquet

    files = parquet_files(root)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*sorted(names), "episode_index", "frame_index")}
    for file in files:
        check_regular(file)
        try:
            metadata = parquet.read_metadata(file)
            present = metadata.schema.to_arrow_schema().names
            missing = [name for name in parts if name not in present]
            if missing:
                raise SpecpolicyError(f"{file} has no column '{missing[0]}' (it has {', '.join(present)})")
            check_table(metadata, list(parts), file)
            table = parquet.read_table(file, columns=list(parts))
            if not len(table):
                continue
        except (ArrowException, OSError) as error:
            raise SpecpolicyError(f"{file} cannot be read ({str(error).splitlines()[0]}): is it downloaded?") from None
        for name in parts:
            parts[name].append(_values(table.column(name), name, file))
    if not parts["episode_index"]:
        raise SpecpolicyError(f"{root} has no episodes")
    columns = {}
    for name, found in parts.items():
        if len({part.shape[1] for part in found}) > 1:
            raise SpecpolicyError(f"{root}: '{name}' has different widths in different files")
        columns[name] = np.concatenate(found)
    for name in ("episode_index", "frame_index"):
        numbers = columns[name]
        if numbers.shape[1] != 1 or numbers.dtype.kind not in "iu" or numbers.min() < 0:
            raise SpecpolicyError(f"{root}: '{name}' must be whole numbers, 0 or more")
        columns[name] = numbers[:, 0]
    for name in names:
        columns[name] = as_vectors(columns[name], f"'{name}'", root)
    wanted = info.total_frames
    if wanted is not None and len(columns["frame_index"]) != wanted:
        raise SpecpolicyError(
            f"{root} has {len(columns['frame_index'])} of the {wanted} frames that meta/info.json promises: "
            "files are missing"
        )
    return columns


def _values(column: Any, name: str, file: Path) -> np.ndarray:
    """Return a column of scalars or of lists of one length as (N, D)."""
    import pyarrow as pa
    from pyarrow import compute

    array, rows = column.combine_chunks(), len(column)
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = compute.list_value_length(array)
        if array.null_count or len(compute.unique(lengths)) > 1:
            raise SpecpolicyError(f"{file}: the entries of '{name}' differ in length")
        array = array.flatten()
    kind = array.type
    if array.null_count or not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise SpecpolicyError(f"{file}: '{name}' holds {kind} with {array.null_count} empty entries, expected numbers")
    if not len(array):
        raise SpecpolicyError(f"{file}: the entries of '{name}' hold no numbers")
    return array.to_numpy(zero_copy_only=False).reshape(rows, -1)


def _locate(root: Path, info: Info, key: str) -> Slice:
    """Find an observation: a feature of this name, or a part of one."""
    own, features = _own_parts(root), info.features
    if key in own and key != ACTION:
        return own[key]
    if key in features and key != ACTION:
        if not features[key].is_vector:
            kind = features[key].dtype
            advice = f": {FROM_VIDEO}" if kind == "video" else ""
            raise SpecpolicyError(f"{root}: '{key}' holds {kind}: only vectors and images can be read{advice}")
        return _whole(info, key)
    there = [name for name, one in features.items() if (one.is_vector or one.is_image) and name != ACTION]
    known = ", ".join(sorted([*own, *_own_images(root)]) or there)
    raise SpecpolicyError(f"{root} has no observation '{key}' (it has {known}): give task.observation_keys")


def _image_feature(root: Path, info: Info, key: str) -> str | None:
    """Find the feature of an observation that is an image; None for another observation."""
    own = _own_images(root)
    if key in own:
        return own[key]
    return key if key in info.features and info.features[key].is_image else None


def _whole(info: Info, feature: str) -> Slice:
    """Return all entries of a feature; those of several dimensions become flat."""
    shape = info.features[feature].shape
    if shape is None or None in shape:
        raise SpecpolicyError(f"{INFO} does not say the shape of '{feature}'")
    return feature, 0, math.prod(side or 0 for side in shape)


def _own_parts(root: Path) -> dict[str, Slice]:
    if not (root / OURS).is_file():
        return {}
    parts = read_json(root / OURS).get("observation", {})
    try:
        return {key: (str(feature), int(start), int(end)) for key, (feature, start, end) in parts.items()}
    except (TypeError, ValueError, AttributeError):
        raise SpecpolicyError(f"{root / OURS} is damaged: delete it to read the data set by its features") from None


def _own_images(root: Path) -> dict[str, str]:
    """Return the features of our images by key, as `specpolicy collect` wrote them."""
    images = read_json(root / OURS).get("images", {}) if (root / OURS).is_file() else {}
    if not isinstance(images, dict) or not all(isinstance(feature, str) for feature in images.values()):
        raise SpecpolicyError(f"{root / OURS} is damaged: delete it to read the data set by its features")
    return images


def _splits(root: Path, info: Info, episodes: Mapping[str, Episode]) -> dict[str, list[str]]:
    """Return the names of the episodes of each split, which LeRobot writes as "FIRST:END"."""
    found = {}
    for name, text in (info.splits or {}).items():
        bounds = re.fullmatch(r"(\d{1,18}):(\d{1,18})", text, re.ASCII)
        if bounds is None:
            raise SpecpolicyError(f"{root / INFO}: split '{name}' is {shown(text)}, expected 'FIRST:END'")
        first, end = int(bounds[1]), int(bounds[2])
        last = 1 + max(map(int, episodes), default=-1)
        if not first <= end <= last:
            raise SpecpolicyError(
                f"{root / INFO}: split '{name}' is '{text}', expected FIRST <= END <= {last}, the number of episodes"
            )
        found[name] = [str(number) for number in range(first, end)]
    return found
