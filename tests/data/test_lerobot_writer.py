"""LeRobot data sets that we write: they have the structure of those that its own code wrote."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cli import main
from specpolicy.data import lerobot_writer
from specpolicy.data.collect import collect
from specpolicy.data.dataset import load_sequences, observation_keys
from specpolicy.data.lerobot_writer import read_settings, write_lerobot
from specpolicy.data.png import from_picture
from specpolicy.data.recorder import Recording
from specpolicy.data.robomimic_hdf5 import Demonstration, write_part

pytest.importorskip("pyarrow")
from pyarrow import parquet

HERE = Path(__file__).parent
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
LENGTHS = (5, 7, 4)  # of the episodes that scripts/write_lerobot_dataset.py writes
FRAMES, HORIZON = 2, 6


def demonstration(number, length, keys=("robot0_eef_pos", "object")):
    """Numbers that say which demonstration, step and key they belong to."""
    step = np.arange(length + 1)[:, None]
    observations = {key: 1000 * number + 100 * index + step + [0.0, 0.25] for index, key in enumerate(keys)}
    dones = np.zeros(length, np.int64)
    dones[-1] = 1
    actions = np.hstack([number + 0 * step, step])[:-1].astype(np.float32)
    return Demonstration(actions, np.zeros((length, 0)), np.full(length, 0.5), dones, observations, success=True)


@pytest.fixture
def parts(tmp_path):
    """The part files of four demonstrations."""
    paths = [tmp_path / f"part_{number}.hdf5" for number in range(4)]
    for number, path in enumerate(paths):
        write_part(path, demonstration(number, 3 + number), True)
    return paths


def test_what_a_killed_run_had_written_is_deleted_and_nothing_else(parts, tmp_path):
    other, ours = tmp_path / ".ours-notebook", tmp_path / ".ours-x1y2z3_4.specpolicy"
    for place in (other, ours / "data"):
        place.mkdir(parents=True)
    write_lerobot(tmp_path / "ours", parts, {}, {"task": {"name": "lift"}}, [1], 20.0)
    assert other.exists() and not ours.exists()


def test_ours_has_the_structure_of_theirs(parts, tmp_path):
    root = tmp_path / "ours"
    assert write_lerobot(root, parts, {}, {"task": {"name": "lift"}, "collection": {"seed": 1}}, [1], 20.0) == 18
    assert read_settings(root) == {"seed": 1}
    reference = HERE / "lerobot_dataset_v3"
    ours, theirs = (json.loads((path / "meta/info.json").read_text()) for path in (root, reference))
    assert ours.keys() >= theirs.keys() and ours["codebase_version"] == theirs["codebase_version"] == "v3.0"
    assert (ours["total_episodes"], ours["total_frames"], ours["fps"]) == (4, 18, 20)
    assert ours["splits"] == {"train": "0:3", "valid": "3:4"} and ours["data_path"] == theirs["data_path"]
    assert ours["features"].keys() >= theirs["features"].keys()
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        assert ours["features"][name] == theirs["features"][name]
    assert ours["features"][STATE]["names"] == ["robot0_eef_pos.0", "robot0_eef_pos.1"]
    for file in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"):
        found, wanted = parquet.read_schema(root / file), parquet.read_schema(reference / file)
        for field in wanted:
            kind = found.field(field.name).type
            # In statistics a whole number may stand for a float, as JSON has it; the widths of ours are others.
            assert str(kind).split("[")[0].replace("double", "int64") == str(field.type).split("[")[0].replace(
                "double", "int64"
            )
    tasks = parquet.read_table(root / "meta/tasks.parquet")
    theirs_tasks = parquet.read_table(reference / "meta/tasks.parquet")
    assert tasks.column_names == theirs_tasks.column_names and tasks.to_pylist()[0]["__index_level_0__"] == "lift"
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]


def test_ours_counts_frames_and_measures_them(parts, tmp_path):
    root = tmp_path / "ours"
    write_lerobot(root, parts, {}, {"task": {}, "collection": {}}, [0, 2], 10.0)
    table = parquet.read_table(root / "data/chunk-000/file-000.parquet").to_pydict()
    lengths = (4, 6, 3, 5)  # demonstrations 1 and 3, then those to validate on, 0 and 2
    assert table["index"] == list(range(18)) and table["frame_index"] == [i for n in lengths for i in range(n)]
    assert table["episode_index"] == np.repeat(range(4), lengths).tolist()
    np.testing.assert_allclose(table["timestamp"], np.array(table["frame_index"]) / 10, rtol=1e-6)
    ends = np.cumsum(lengths) - 1
    assert (
        np.flatnonzero(table["next.done"]).tolist() == np.flatnonzero(table["next.success"]).tolist() == ends.tolist()
    )
    episodes = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(one["dataset_from_index"], one["dataset_to_index"]) for one in episodes] == [
        (0, 4), (4, 10), (10, 13), (13, 18),
    ]  # fmt: skip
    actions = np.array(table["action"])
    assert episodes[1]["stats/action/max"] == actions[4:10].max(0).tolist() and episodes[1]["length"] == 6
    stats = json.loads((root / "meta/stats.json").read_text())["action"]
    np.testing.assert_allclose([stats["mean"], stats["std"]], [actions.mean(0), actions.std(0)])
    np.testing.assert_allclose(stats["q50"], np.median(actions, axis=0))
    assert stats["count"] == [18]


def test_ours_is_read_under_the_observations_own_names(parts, tmp_path):
    root = tmp_path / "ours"
    write_lerobot(root, parts, {}, {"task": {}, "collection": {}}, [1], 20.0)
    assert observation_keys(root) == ["object", "robot0_eef_pos"]
    train = load_sequences(root, ["object", "robot0_eef_pos"], FRAMES, HORIZON, "train")
    valid = load_sequences(root, ["robot0_eef_pos"], FRAMES, HORIZON, "valid")
    assert len(train) == 3 + 5 + 6 and len(valid) == 4
    assert valid.observation["robot0_eef_pos"][0].tolist() == [[1000, 1000.25]] * 2
    assert train.observation["object"][1].tolist() == [[100, 100.25], [101, 101.25]]
    joined = load_sequences(root, [ENVIRONMENT], FRAMES, HORIZON, "train").observation[ENVIRONMENT]
    torch.testing.assert_close(joined, train.observation["object"])


def test_observations_that_name_no_robot_are_all_state(tmp_path):
    part = tmp_path / "part.hdf5"
    write_part(part, demonstration(0, 3, keys=("goal", "position")), True)
    write_lerobot(tmp_path / "ours", [part], {}, {"task": {}, "collection": {}}, [], 20.0)
    info = json.loads((tmp_path / "ours/meta/info.json").read_text())
    assert info["features"][STATE]["shape"] == [4] and ENVIRONMENT not in info["features"]
    assert info["splits"] == {"train": "0:1"}
    with pytest.raises(SpecpolicyError, match="has one episode"):
        load_sequences(tmp_path / "ours", ["goal"], FRAMES, HORIZON, "train")


def test_large_data_sets_have_several_files(parts, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    write_lerobot(whole, parts, {}, {"task": {}, "collection": {}}, [], 20.0)
    monkeypatch.setattr(lerobot_writer, "FILE_MEGABYTES", 0)
    monkeypatch.setattr(lerobot_writer, "FILES_PER_CHUNK", 3)
    write_lerobot(tmp_path / "many", parts, {}, {"task": {}, "collection": {}}, [], 20.0)
    files = [
        str(file.relative_to(tmp_path / "many/data")) for file in sorted((tmp_path / "many/data").rglob("*.parquet"))
    ]
    assert files == [f"chunk-000/file-00{number}.parquet" for number in range(3)] + ["chunk-001/file-000.parquet"]
    rows = parquet.read_table(tmp_path / "many/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["data/chunk_index"], row["data/file_index"]) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    one, other = (load_sequences(root, ["object"], FRAMES, HORIZON, None) for root in (whole, tmp_path / "many"))
    torch.testing.assert_close(one.action, other.action)


def test_nothing_is_left_of_a_data_set_that_could_not_be_written(parts, tmp_path):
    write_part(parts[2], None, False)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyError):
        write_lerobot(tmp_path / "ours", parts, {}, {"task": {}, "collection": {}}, [], 20.0)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "values",
    [np.zeros((3, 8, 8, 3), np.float32), np.zeros((3, 3, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)],
    ids=["of floats", "channels first", "no channels"],
)
def test_what_is_no_vector_and_no_image_is_refused_by_name(tmp_path, values):
    part = tmp_path / "part.hdf5"
    write_part(part, demonstration(0, 3), True)
    with h5py.File(part, "a") as file:
        file["demo/obs/camera"] = values
    with pytest.raises(SpecpolicyError, match=r"'camera' has shape .* holds"):
        write_lerobot(tmp_path / "ours", [part], {}, {"task": {}, "collection": {}}, [], 20.0)
    with h5py.File(part, "a") as file:
        del file["demo/obs"]
        file["demo/obs/camera"] = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(SpecpolicyError, match="images alone"):
        write_lerobot(tmp_path / "ours", [part], {}, {"task": {}, "collection": {}}, [], 20.0)


def pictures(number, length):
    """Noise that says which demonstration and step it belongs to."""
    return np.random.default_rng(number).integers(0, 256, (length + 1, 6, 8, 3), np.uint8)


@pytest.fixture
def seeing(tmp_path):
    """The part files of three demonstrations with a camera."""
    paths = [tmp_path / f"seeing_{number}.hdf5" for number in range(3)]
    for number, path in enumerate(paths):
        one = demonstration(number, 3 + number)
        one.observations["top_image"] = pictures(number, 3 + number)
        write_part(path, one, True)
    return paths


def test_images_are_kept_as_lerobot_keeps_them(seeing, tmp_path):
    """A struct of a PNG's bytes and a name; statistics of each channel in [0, 1], of the shape (3, 1, 1)."""
    root = tmp_path / "ours"
    write_lerobot(root, seeing, {}, {"task": {}, "collection": {}}, [1], 20.0)
    info = json.loads((root / "meta/info.json").read_text())
    feature = {"dtype": "image", "shape": [6, 8, 3], "names": ["height", "width", "channels"]}
    assert info["features"]["observation.images.top"] == feature
    table = parquet.read_table(root / "data/chunk-000/file-000.parquet")
    assert str(table.schema.field("observation.images.top").type) == "struct<bytes: binary, path: string>"
    rows = table.column("observation.images.top").to_pylist()
    order = [(number, step) for number in (0, 2, 1) for step in range(3 + number)]  # the one to validate on is last
    for row, (number, step) in zip(rows, order, strict=True):
        assert row["path"] == f"frame-{step:06d}.png" and row["bytes"].startswith(b"\x89PNG")
        np.testing.assert_array_equal(from_picture(row["bytes"], "here"), pictures(number, 3 + number)[step])
    every = np.concatenate([pictures(number, 3 + number)[:-1] for number in (0, 1, 2)]) / 255
    stats = json.loads((root / "meta/stats.json").read_text())["observation.images.top"]
    assert stats["count"] == [len(every)] and np.shape(stats["mean"]) == (3, 1, 1)
    flat = every.reshape(-1, 3)
    expected = {"min": flat.min(0), "max": flat.max(0), "mean": flat.mean(0), "std": flat.std(0)}
    expected |= {"q01": np.quantile(flat, 0.01, axis=0), "q50": np.quantile(flat, 0.5, axis=0)}
    for name, values in expected.items():
        np.testing.assert_allclose(np.ravel(stats[name]), values, atol=1e-12, err_msg=name)
    episodes = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    own = pictures(2, 5)[:-1] / 255
    np.testing.assert_allclose(
        np.ravel(episodes[1]["stats/observation.images.top/mean"]), own.reshape(-1, 3).mean(0), atol=1e-12
    )


@pytest.fixture
def arguments(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.chdir(tmp_path)
    return ["task=gym", "task.name=reach", "task.id=reach_env:Reach-v0"]


def test_collect_and_train_from_the_command_line(arguments, tmp_path, capsys):
    record = ["collect", *arguments, "expert=reach_env:make_expert", "workers=0", "episodes=6", "format=lerobot"]
    assert main(record) == 0
    assert main(record) == 0 and "is complete already" in capsys.readouterr().out
    assert main([*record, "seed=1"]) == 2 and "was made with seed=0" in capsys.readouterr().err
    root = tmp_path / "data/reach_lerobot"
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["reach_lerobot", "reach_lerobot.yaml"]
    same = [*record[:-1], "format=hdf5"]
    assert main(same) == 0
    for split in ("train", "valid"):
        one, other = (
            load_sequences(path, ["goal", "position"], FRAMES, HORIZON, split)
            for path in (root, tmp_path / "data/reach.hdf5")
        )
        assert {tuple(row.flatten().tolist()) for row in one.action} == {
            tuple(row.flatten().tolist()) for row in other.action
        }
    small = ["policy.network.down_dims=[8,16]", "policy.network.n_groups=4", "steps=2", "batch_size=4", "threads=1"]
    assert main(["train", *arguments, f"data={root}", "output=trained", *small]) == 0
    policy = load_policy(tmp_path / "trained")
    assert policy.observation_keys == ("goal", "position") and policy.action_dim == 2


def test_settings_that_do_not_fit_the_format(arguments, tmp_path, capsys):
    for wrong, complaint in (
        (["format=csv"], "format=csv: use one of hdf5, lerobot"),
        (["format=lerobot", "output=x.hdf5"], "is a directory"),
        (["output=somewhere"], "ends in .hdf5"),
    ):
        assert main(["collect", *arguments, *wrong]) == 2
        assert complaint in capsys.readouterr().err
    (tmp_path / "data/reach_lerobot").mkdir(parents=True)
    with pytest.raises(SpecpolicyError, match="no data set of ours"):
        read_settings(tmp_path / "data/reach_lerobot")


def test_an_unknown_format_is_said_before_anything_is_recorded(tmp_path):
    with pytest.raises(SpecpolicyError, match="unknown format 'csv'"):
        collect(Recording("{}", 0.0, 0, 1.0), 1, tmp_path / "x", file_format="csv")
