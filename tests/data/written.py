"""Small data sets of every kind, whose numbers say which episode and which step they belong to."""

import json

import h5py
import numpy as np

KEY = "observation.state"
LENGTHS = (5, 9, 4, 7)
KINDS = ("robomimic", "lerobot 2", "lerobot 3", "zarr")


def rows(episode, length):
    """(T, 2): the number of the episode, the number of the step."""
    return np.stack([np.full(length, episode), np.arange(length)], axis=1).astype(np.float32)


def write(kind, path, lengths=LENGTHS, parts=None, hz=None):
    """Write a data set of a kind; `parts`: {name: numbers of episodes}, one after the other where it is LeRobot's."""
    if kind == "robomimic":
        return write_robomimic(path / "demos.hdf5", lengths, parts, hz)
    if kind == "zarr":
        assert not parts and hz is None, "a buffer names neither"
        return write_zarr(path / "replay.zarr", lengths)
    splits = {name: f"{min(numbers)}:{max(numbers) + 1}" for name, numbers in (parts or {}).items()}
    return write_lerobot(path / "lerobot", lengths, int(kind[-1]), splits, hz)


def write_robomimic(path, lengths=LENGTHS, parts=None, hz=None):
    with h5py.File(path, "w") as file:
        for number, length in enumerate(lengths):
            group = file.create_group(f"data/demo_{number}")
            group.attrs["num_samples"] = length
            group["actions"] = group[f"obs/{KEY}"] = rows(number, length).astype(np.float64)
        for name, numbers in (parts or {}).items():
            file[f"mask/{name}"] = np.array([f"demo_{number}".encode() for number in numbers], "S16")
        if hz is not None:
            file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": hz}})
    return path


def write_lerobot(root, lengths=LENGTHS, version=3, splits=None, hz=None):
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for number, length in enumerate(lengths):
        values = [row.tolist() for row in rows(number, length)]
        index = {"episode_index": [number] * length, "frame_index": list(range(length))}
        tables.append(pa.table({"action": values, KEY: values, **index}))
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta").mkdir()
    for number, table in enumerate(tables if version == 2 else [pa.concat_tables(tables)]):
        name = f"episode_{number:06d}" if version == 2 else f"file-{number:03d}"
        parquet.write_table(table, root / f"data/chunk-000/{name}.parquet")
    info = {
        "codebase_version": {2: "v2.1", 3: "v3.0"}[version],
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "fps": hz,
        "splits": splits,
        "features": {name: {"dtype": "float32", "shape": [2], "names": None} for name in ("action", KEY)},
    }
    (root / "meta/info.json").write_text(json.dumps({key: one for key, one in info.items() if one is not None}))
    return root


def change_info(root, **fields):
    file = root / "meta/info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def write_zarr(path, lengths=LENGTHS, **changes):
    import zarr

    options = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) > 2 else {}
    root = zarr.open_group(str(path), mode="w", **options)
    values = np.concatenate([rows(number, length) for number, length in enumerate(lengths)])
    arrays = {"data/action": values, f"data/{KEY}": values, "meta/episode_ends": np.cumsum(lengths), **changes}
    for name, value in arrays.items():
        group, _, leaf = name.partition("/")
        root.require_group(group)[leaf] = np.asarray(value)
    return path


def episodes(sequences):
    """Numbers of the episodes that windows come from."""
    seen = {int(number) for number in sequences.action[..., 0].unique()}
    assert seen == {int(number) for number in sequences.observation[KEY][..., 0].unique()}
    return seen
