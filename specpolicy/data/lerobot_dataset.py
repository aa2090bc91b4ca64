"""LeRobot data sets, versions 2 and 3: the vectors in their parquet files, read with pyarrow. Needs the extra `data`.

Both versions hold the rows of all episodes in `data/**/*.parquet` (2: a file an episode, 3: many in one) and describe
them in `meta/info.json`. A data set of `specpolicy collect format=lerobot` also says, in `meta/specpolicy.json`, which
parts of its state vectors are which observations, and is read under their own names.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.data.episodes import Episode, Sequences, check_finite, cut, held_out
from specpolicy.errors import SpecpolicyError

INFO, OURS = "meta/info.json", "meta/specpolicy.json"
ACTION = "action"
VALIDATION_NAMES = ("valid", "val", "validation")
# feature, first entry, entry after the last one
Slice = tuple[str, int, int]


def load_sequences(
    path: str | Path,
    observation_keys: Sequence[str],
    n_obs_steps: int,
    horizon: int,
    split: str | None = "train",
    validation: float = 0.1,
) -> Sequences:
    """See `specpolicy.data.dataset.load_sequences`."""
    root, info = Path(path), read_info(path)
    slices = {key: _locate(root, info, key) for key in observation_keys}
    columns = read_columns(root, info, {ACTION, *(feature for feature, _, _ in slices.values())})
    order = np.lexsort((columns["frame_index"], columns["episode_index"]))
    numbers, starts = np.unique(columns["episode_index"][order], return_index=True)
    bounds = [*starts, len(order)]
    chosen = set(_chosen(root, info, [int(number) for number in numbers], split, validation))
    episodes = [
        Episode(
            columns[ACTION][rows],
            {key: columns[feature][rows, start:end] for key, (feature, start, end) in slices.items()},
        )
        for number, rows in ((n, order[a:b]) for n, a, b in zip(numbers, bounds, bounds[1:], strict=False))
        if int(number) in chosen
    ]
    return cut(episodes, n_obs_steps, horizon)


def observation_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.observation_keys`."""
    root, info = Path(path), read_info(path)
    return sorted(_own_parts(root)) or [
        key for key, feature in info["features"].items() if key.startswith("observation") and _is_vector(feature)
    ]


def read_info(path: str | Path) -> dict[str, Any]:
    """`meta/info.json`, checked for what is needed of it."""
    file = Path(path) / INFO
    info = _json(file)
    version = str(info.get("codebase_version", ""))
    if not version.startswith(("v2.", "v3.")):
        raise SpecpolicyError(f"{file}: version '{version}' is not known (v2.x and v3.x are): convert it with LeRobot")
    if not isinstance(info.get("features"), dict) or ACTION not in info["features"]:
        raise SpecpolicyError(f"{file} lists no feature '{ACTION}'")
    return info


def read_columns(root: Path, info: Mapping[str, Any], names: set[str]) -> dict[str, np.ndarray]:
    """Columns of all rows, (N, D) for features and (N,) for the indices."""
    from pyarrow import ArrowException, parquet

    files = sorted((root / "data").rglob("*.parquet"))
    if not files:
        raise SpecpolicyError(f"{root / 'data'} has no parquet files: is the data set downloaded?")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*sorted(names), "episode_index", "frame_index")}
    for file in files:
        try:
            present = parquet.read_schema(file).names
            missing = [name for name in parts if name not in present]
            if missing:
                raise SpecpolicyError(f"{file} has no column '{missing[0]}' (it has {', '.join(present)})")
            table = parquet.read_table(file, columns=list(parts))
        except (ArrowException, OSError) as error:
            raise SpecpolicyError(f"{file} cannot be read ({str(error).splitlines()[0]}): is it downloaded?") from None
        for name in parts:
            parts[name].append(_values(table.column(name), name, file))
    widths = {name: {part.shape[1:] for part in found} for name, found in parts.items()}
    for name, shapes in widths.items():
        if len(shapes) > 1:
            raise SpecpolicyError(f"{root}: '{name}' has different widths in different files")
    columns = {name: np.concatenate(found) for name, found in parts.items()}
    for name in ("episode_index", "frame_index"):
        columns[name] = columns[name].reshape(-1)
    for name in names:
        check_finite(columns[name], f"'{name}'", root)
    wanted = info.get("total_frames")
    if wanted is not None and len(columns["frame_index"]) != wanted:
        raise SpecpolicyError(
            f"{root} has {len(columns['frame_index'])} of the {wanted} frames that meta/info.json promises: "
            "files are missing"
        )
    return columns


def _values(column: Any, name: str, file: Path) -> np.ndarray:
    """A column of scalars or lists of one length as (N, D)."""
    import pyarrow as pa
    from pyarrow import compute

    array, rows = column.combine_chunks(), len(column)
    if isinstance(array, pa.ChunkedArray):  # without rows
        return np.zeros((0, 1))
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = compute.list_value_length(array)
        if array.null_count or len(compute.unique(lengths)) > 1:
            raise SpecpolicyError(f"{file}: the entries of '{name}' differ in length")
        array = array.flatten()
    kind = array.type
    if array.null_count or not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise SpecpolicyError(f"{file}: '{name}' holds {kind} with {array.null_count} empty entries, expected numbers")
    values = array.to_numpy(zero_copy_only=False)
    values = values if pa.types.is_integer(kind) else values.astype(np.float32)
    return values.reshape(rows, -1)


def _locate(root: Path, info: Mapping[str, Any], key: str) -> Slice:
    """Where an observation lies: a feature of this name, or a part of one."""
    own, features = _own_parts(root), info["features"]
    if key in own:
        return own[key]
    if key in features and key != ACTION:
        if not _is_vector(features[key]):
            raise SpecpolicyError(f"{root}: '{key}' holds {features[key].get('dtype')}: only vectors can be trained on")
        return key, 0, int(np.prod(features[key]["shape"]))
    known = ", ".join(sorted(own) or [name for name, one in features.items() if _is_vector(one) and name != ACTION])
    raise SpecpolicyError(f"{root} has no observation '{key}' (it has {known}): give task.observation_keys")


def _own_parts(root: Path) -> dict[str, Slice]:
    if not (root / OURS).is_file():
        return {}
    parts = _json(root / OURS).get("observation", {})
    try:
        return {key: (str(feature), int(start), int(end)) for key, (feature, start, end) in parts.items()}
    except (TypeError, ValueError, AttributeError):
        raise SpecpolicyError(f"{root / OURS} is damaged: delete it to read the data set by its features") from None


def _is_vector(feature: Mapping[str, Any]) -> bool:
    return str(feature.get("dtype", "")).startswith(("float", "int", "bool", "uint"))


def _chosen(root: Path, info: Mapping[str, Any], numbers: list[int], split: str | None, share: float) -> list[int]:
    """Numbers of the episodes of a split: as the data set says, else a share of them held out."""
    if split is None:
        return numbers
    splits = info.get("splits") or {}
    own = next((name for name in VALIDATION_NAMES if name in splits), None)
    name = own if split == "valid" else split
    if own is not None:
        if name not in splits:
            raise SpecpolicyError(f"{root} has no split '{split}' (it has {', '.join(splits)})")
        try:
            first, _, end = str(splits[name]).partition(":")
            chosen = [number for number in numbers if int(first) <= number < int(end)]
        except ValueError:
            raise SpecpolicyError(f"{root / INFO}: split '{name}' is '{splits[name]}', expected FIRST:END") from None
        if not chosen:
            raise SpecpolicyError(f"{root}: split '{name}' ({splits[name]}) has no episodes")
        return chosen
    if split not in ("train", "valid"):
        raise SpecpolicyError(f"{root} has no split '{split}': use train or valid")
    valid = {numbers[index] for index in held_out(len(numbers), share, root)}
    return [number for number in numbers if (number in valid) == (split == "valid")]


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise SpecpolicyError(f"{file} cannot be read as JSON ({error})") from None
    return content
