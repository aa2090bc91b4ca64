"""Damaged data sets of every kind: one line that names the file and what is wrong, never a traceback, never silence."""

import json
import shutil

import h5py
import numpy as np
import pytest
from written import KEY, LENGTHS, change_info, episodes, write, write_lerobot, write_robomimic, write_zarr

from specpolicy import SpecpolicyError
from specpolicy.data.dataset import load_sequences, observation_keys

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")
import pyarrow as pa
from pyarrow import parquet

ROWS = sum(LENGTHS)


def load(path, split="train"):
    return load_sequences(path, [KEY], 2, 6, split, validation=0.25)


def refused(path, complaint, action=load):
    with pytest.raises(SpecpolicyError, match=complaint) as error:
        action(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


# robomimic


def put(file, name, value):
    if name in file:
        del file[name]
    if value is not None:
        file[name] = value


def entry(name, value):
    return lambda file: put(file, name, value)


def attribute(name, key, value):
    return lambda file: file[name].attrs.__setitem__(key, value)


def every(*changes):
    return lambda file: [change(file) for change in changes]


def env_args(**arguments):
    return attribute("data", "env_args", json.dumps({"env_name": "Lift", "env_kwargs": arguments}))


def no_steps(file):
    for name in ("data/demo_1/actions", f"data/demo_1/obs/{KEY}"):
        put(file, name, np.zeros((0, 2)))
    file["data/demo_1"].attrs["num_samples"] = 0


def group_of_actions(file):
    put(file, "data/demo_1/actions", None)
    file.create_group("data/demo_1/actions")


def texts(file):
    put(file, "data/demo_1/actions", None)
    file["data/demo_1"].create_dataset("actions", (9, 2), h5py.string_dtype())


def broken_chunk(file):
    put(file, "data/demo_1/actions", None)
    packed = file.create_dataset("data/demo_1/actions", data=np.ones((9, 2)), chunks=(9, 2), compression="gzip")
    packed.id.write_direct_chunk((0, 0), b"no gzip")


ROBOMIMIC = {
    "no data": (entry("data", None), "no demonstrations under 'data'"),
    "data is no group": (entry("data", np.zeros(3)), "no demonstrations under 'data'"),
    "no demonstrations": (lambda file: file["data"].clear(), "no demonstrations under 'data'"),
    "a demonstration is no group": (entry("data/demo_1", np.zeros(3)), "demo_1 lacks 'actions' or 'obs'"),
    "no observations": (entry("data/demo_1/obs", None), "demo_1 lacks 'actions' or 'obs'"),
    "obs is no group": (entry("data/demo_1/obs", np.zeros((9, 2))), "demo_1 lacks 'actions' or 'obs'"),
    "actions is a group": (group_of_actions, "demo_1/actions has shape None"),
    "a link to nothing": (entry("data/demo_1", h5py.SoftLink("/nowhere")), "damaged|lacks"),
    "a file that is not there": (entry("data/demo_1/actions", h5py.ExternalLink("no.hdf5", "/a")), "damaged|lacks"),
    "a broken chunk": (broken_chunk, "is damaged"),
    "no steps": (no_steps, "episode demo_1 has no steps"),
    "no actions, some observations": (entry("data/demo_1/actions", np.zeros((0, 2))), "num_samples=9 and has 0"),
    "fewer samples than promised": (attribute("data/demo_1", "num_samples", 12), "num_samples=12 and has 9"),
    "more samples than promised": (attribute("data/demo_1", "num_samples", 3), "num_samples=3 and has 9"),
    "samples in words": (attribute("data/demo_1", "num_samples", "nine"), "num_samples=nine"),
    "samples as a list": (attribute("data/demo_1", "num_samples", [9, 9]), "num_samples="),
    "scalar actions": (entry("data/demo_1/actions", 3.0), r"demo_1/actions has shape \(\)"),
    "flat actions": (entry("data/demo_1/actions", np.zeros(9)), r"demo_1/actions has shape \(9,\)"),
    "flat observations": (entry(f"data/demo_1/obs/{KEY}", np.zeros(9)), r"has shape \(9,\)"),
    "images": (entry(f"data/demo_1/obs/{KEY}", np.zeros((9, 4, 4, 3))), r"has shape \(9, 4, 4, 3\)"),
    "words": (entry("data/demo_1/actions", np.full((9, 2), b"a")), "demo_1/actions holds .*expected numbers"),
    "texts": (texts, "holds object, expected numbers"),
    "complex numbers": (entry("data/demo_1/actions", np.full((9, 2), 1j)), "holds complex128, expected numbers"),
    "records": (entry("data/demo_1/actions", np.zeros((9, 2), [("a", "f4")])), "expected numbers"),
    "NaN": (entry("data/demo_1/actions", np.full((9, 2), np.nan)), "demo_1/actions has values that are not finite"),
    "beyond float32": (entry("data/demo_1/actions", np.full((9, 2), 1e300)), "values that are not finite"),
    "a mask of numbers": (entry("mask/train", np.arange(3)), "mask/train is no list of names"),
    "a mask that is a group": (lambda file: file.create_group("mask/train"), "mask/train is no list of names"),
    "a mask that is one name": (entry("mask/train", b"demo_0"), "mask/train is no list of names"),
    "a mask of two dimensions": (entry("mask/train", np.full((2, 2), b"demo_0")), "mask/train is no list of names"),
    "mask is no group": (entry("mask", np.zeros(3)), "mask is no group"),
    "an empty mask": (entry("mask/train", np.zeros(0, "S8")), "'train' has no episodes"),
    "a mask of what is not there": (entry("mask/train", [b"demo_0", b"demo_9"]), "episode demo_9, which is not there"),
    "a mask that is no text": (entry("mask/train", [b"\xff\xfe"]), "'train' names episode"),
    "a mask of one twice": (entry("mask/train", [b"demo_0"] * 2), "names episode demo_0 more than once"),
    "a mask for validation alone": (entry("mask/valid", [b"demo_0"]), "has no 'train'"),
    "a rate of zero": (attribute("data", "control_hz", 0.0), "control_hz is"),
    "a rate in words": (attribute("data", "control_hz", "fast"), "control_hz is 'fast'"),
    "a description that is no JSON": (attribute("data", "env_args", "{"), "env_args is no description"),
    "a description that is a list": (attribute("data", "env_args", "[]"), "env_args is no description"),
    "two rates": (every(attribute("data", "control_hz", 10.0), env_args(control_freq=20)), "say 10 and 20"),
    "a negative rate": (env_args(control_freq=-20), "control_freq .*is -20"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ROBOMIMIC)
def test_damaged_robomimic(tmp_path, damage):
    change, complaint = ROBOMIMIC[damage]
    path = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(path, "a") as file:
        change(file)
    refused(path, complaint)


def test_robomimic_without_counts_masks_or_numbers(tmp_path):
    path = write_robomimic(tmp_path / "demos.hdf5")
    before = load(path, None)
    with h5py.File(path, "a") as file:
        for name in list(file["data"]):
            del file[f"data/{name}"].attrs["num_samples"]
        file.move("data/demo_3", "data/the_last")
        file.create_group("mask")
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": None})
    after = load(path, None)
    assert (after.action == before.action).all() and (after.observation[KEY] == before.observation[KEY]).all()
    assert len(episodes(load(path, "valid"))) == 1


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int16, np.uint8, bool])
def test_numbers_of_any_kind_are_read(tmp_path, kind):
    values = np.array([[step % 2, 1] for step in range(9)], kind)
    path = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(path, "a") as file:
        put(file, "data/demo_1/actions", values)
    buffer = write_zarr(tmp_path / "replay.zarr", [9], **{"data/action": values, f"data/{KEY}": values})
    root = write_lerobot(tmp_path / "lerobot", [9])
    table(root, "action", pa.array(values.tolist(), pa.list_(pa.from_numpy_dtype(kind))))
    for found in (load(path, None).action[5:14, 1], load(buffer, None).action[:, 1], load(root, None).action[:, 1]):
        np.testing.assert_array_equal(found, values.astype(np.float32))


# LeRobot, both versions


def files(root):
    return sorted((root / "data").rglob("*.parquet"))


def table(root, name, values):
    file = files(root)[0]
    found = parquet.read_table(file)
    change = values(found) if callable(values) else values
    parquet.write_table(found.set_column(found.column_names.index(name), name, change[: len(found)]), file)


def column(name, value):
    """Every entry of a column of the first file becomes `value`, or what it makes of the row's number."""
    return lambda root: table(
        root, name, lambda rows: pa.array([value(row) if callable(value) else value for row in range(len(rows))])
    )


def info(**fields):
    return lambda root: change_info(root, **fields)


def features(**changes):
    def change(root):
        known = json.loads((root / "meta/info.json").read_text())["features"]
        merged = known | {name.replace("__", "."): feature for name, feature in changes.items()}
        change_info(root, features={name: feature for name, feature in merged.items() if feature is not ...})

    return change


def empty(root):
    for file in files(root):
        parquet.write_table(parquet.read_table(file).slice(0, 0), file)
    change_info(root, total_frames=0, total_episodes=0)


LEROBOT = {
    "no files": (lambda root: shutil.rmtree(root / "data"), "no parquet files"),
    "a pointer of Git LFS": (lambda root: files(root)[0].write_bytes(b"version https://git-lfs"), "cannot be read"),
    "an empty file": (lambda root: files(root)[0].write_bytes(b""), "cannot be read"),
    "a cut file": (lambda root: files(root)[0].write_bytes(files(root)[0].read_bytes()[:-40]), "cannot be read"),
    "no episodes": (empty, "has no episodes"),
    "an episode of no frames": (info(total_episodes=5), "4 of the 5 episodes"),
    "fewer episodes than there are": (info(total_episodes=3), "4 of the 3 episodes"),
    "frames that are missing": (info(total_frames=30), "25 of the 30 frames"),
    "counts in words": (info(total_frames="many"), "total_frames"),
    "features that are a list": (info(features=["action"]), "features"),
    "a feature that is a word": (features(action="float32"), "action"),
    "a feature without a dtype": (features(action={"shape": [2]}), "action.*dtype"),
    "a shape in words": (features(action={"dtype": "float32", "shape": "two"}), "shape"),
    "no shape": (features(observation__state={"dtype": "float32"}), "shape of 'observation.state'"),
    "another width than promised": (features(observation__state={"dtype": "float32", "shape": [3]}), "entries 0 to 3"),
    "actions wider than promised": (features(action={"dtype": "float32", "shape": [1]}), "entries 0 to 1 of 'action'"),
    "a promised video": (features(observation__state={"dtype": "video", "shape": [3, 9, 9]}), "holds video: only"),
    "actions that are words": (column("action", "left"), "'action' holds string"),
    "actions that are lists of words": (column("action", ["left", "up"]), "'action' holds string"),
    "actions that are records": (column("action", {"x": 1.0}), "'action' holds struct"),
    "actions of no numbers": (column("action", []), "'action'.* no numbers|'action' holds null"),
    "actions that are not there": (column("action", None), "'action' holds null"),
    "ragged actions": (column("action", lambda row: [0.0] * (1 + row % 2)), "differ in length"),
    "an action that is not there": (column("action", lambda row: None if row == 1 else [0.0, 1.0]), "differ in length"),
    "a number that is not there": (column("action", lambda row: [0.0, None if row == 1 else 1.0]), "empty entries"),
    "NaN": (column("action", [0.0, float("nan")]), "'action' has values that are not finite"),
    "beyond float32": (column(KEY, [0.0, 1e300]), f"'{KEY}' has values that are not finite"),
    "numbers of episodes that are not whole": (column("episode_index", 0.5), "'episode_index' must be whole numbers"),
    "numbers of episodes below zero": (column("episode_index", -1), "'episode_index' must be whole numbers"),
    "lists of numbers of frames": (column("frame_index", lambda row: [row, row]), "'frame_index' (must|has)"),
    "one frame twice": (column("frame_index", lambda row: max(row - 1, 0)), "not numbered one after the other"),
    "a gap": (column("frame_index", lambda row: row + (row > 2)), "not numbered one after the other"),
    "no rate": (info(fps=0), "fps"),
    "a rate in words": (info(fps="30"), "fps"),
    "a rate that is true": (info(fps=True), "fps"),
    "a rate below zero": (info(fps=-30), "fps"),
}  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("damage", LEROBOT)
def test_damaged_lerobot(tmp_path, version, damage):
    change, complaint = LEROBOT[damage]
    root = write_lerobot(tmp_path / "data", version=version)
    change(root)
    with pytest.raises(SpecpolicyError, match=complaint) as error:
        load(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "part", [[KEY, 0, 3], [KEY, 1, 1], [KEY, -1, 1], [KEY, 0], [KEY, 0.5, "x"], ["nowhere", 0, 1], 7, None]
)
def test_parts_of_a_state_that_is_narrower(tmp_path, part):
    root = write_lerobot(tmp_path / "data")
    (root / "meta/specpolicy.json").write_text(json.dumps({"observation": {"object": part}}))
    with pytest.raises(SpecpolicyError, match=r"'object'|is damaged|'nowhere'"):
        load_sequences(root, ["object"], 2, 6, None)


def test_an_info_that_never_ends(tmp_path):
    root = write_lerobot(tmp_path / "data")
    (root / "meta/info.json").unlink()
    (root / "meta/info.json").symlink_to("/dev/zero")
    with pytest.raises(SpecpolicyError):
        load(root)


# zarr

BUFFERS = {
    "no episodes": ({"meta/episode_ends": np.zeros(0, int)}, "has no episodes"),
    "ends that fall": ({"meta/episode_ends": [9, 5, 25]}, "must be rising"),
    "an episode of no steps": ({"meta/episode_ends": [0, 5, 25]}, "must be rising"),
    "an end below zero": ({"meta/episode_ends": [-2, 25]}, "must be rising"),
    "ends that are not whole": ({"meta/episode_ends": [5.5, 25.0]}, "must be rising"),
    "ends in two dimensions": ({"meta/episode_ends": [[5, 25]]}, "must be rising"),
    "rows beyond the last end": ({"meta/episode_ends": [5, 20]}, "data/action has 25 rows, meta/episode_ends says 20"),
    "an end beyond the rows": ({"meta/episode_ends": [5, 30]}, "data/action has 25 rows, meta/episode_ends says 30"),
    "observations that are shorter": ({f"data/{KEY}": np.zeros((9, 2))}, "has 9 rows"),
    "observations that are longer": ({f"data/{KEY}": np.zeros((26, 2))}, "has 26 rows"),
    "complex actions": ({"data/action": np.full((ROWS, 2), 1j)}, "data/action holds .*numbers"),
    "complex observations": ({f"data/{KEY}": np.full((ROWS, 2), 1j)}, "no vectors data/observation.state"),
    "words": ({"data/action": np.full((ROWS, 2), b"a")}, "data/action holds .*numbers"),
    "NaN": ({"data/action": np.full((ROWS, 2), np.nan)}, "data/action has values that are not finite"),
    "beyond float32": ({"data/action": np.full((ROWS, 2), 1e300)}, "data/action has values that are not finite"),
    "images": ({f"data/{KEY}": np.zeros((ROWS, 24, 24, 3))}, "no vectors data/observation.state"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BUFFERS)
def test_damaged_zarr(tmp_path, damage):
    changes, complaint = BUFFERS[damage]
    refused(write_zarr(tmp_path / "replay.zarr", **changes), complaint)


# What is right, and cannot be learned from


def test_data_without_vectors(tmp_path):
    hdf5 = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(hdf5, "a") as file:
        for number, length in enumerate(LENGTHS):
            put(file, f"data/demo_{number}/obs/{KEY}", None)
            put(file, f"data/demo_{number}/obs/image", np.zeros((length, 4, 4, 3), np.uint8))
    buffer = write_zarr(tmp_path / "replay.zarr", **{f"data/{KEY}": np.zeros((ROWS, 24, 24, 3), np.uint8)})
    root = write_lerobot(tmp_path / "lerobot")
    features(observation__state=..., observation__top={"dtype": "video", "shape": [9, 9, 3]})(root)
    for path in (hdf5, buffer, root):
        refused(path, "no observations that are vectors", observation_keys)
        with pytest.raises(SpecpolicyError, match="no observations to read"):
            load_sequences(path, [], 2, 6)


@pytest.mark.parametrize("kind", ["robomimic", "lerobot 2", "lerobot 3", "zarr"])
def test_one_episode_has_none_to_hold_out(tmp_path, kind):
    path = write(kind, tmp_path, lengths=[9])
    assert len(load(path, None)) == 9
    refused(path, "has one episode")
