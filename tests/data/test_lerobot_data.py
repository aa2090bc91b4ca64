"""LeRobot data sets that its own code wrote, and broken ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.data.dataset import load_sequences, observation_keys

pytest.importorskip("pyarrow")
from pyarrow import parquet

HERE = Path(__file__).parent
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
LENGTHS = (5, 7, 4)  # of the episodes that scripts/write_lerobot_dataset.py writes
FRAMES, HORIZON = 2, 6


@pytest.fixture(params=("v2", "v3"))
def theirs(request, tmp_path):
    """A copy of a data set that LeRobot 0.3.3 (version 2.1) or 0.4.4 (version 3.0) wrote."""
    return Path(shutil.copytree(HERE / f"lerobot_dataset_{request.param}", tmp_path / "data"))


def expected(episode):
    """(steps of the frames, steps of the actions) of all windows of one of their episodes."""
    step, last = np.arange(LENGTHS[episode])[:, None], LENGTHS[episode] - 1
    return np.clip(step + np.arange(-1, 1), 0, last), np.clip(step + np.arange(-1, HORIZON - 1), 0, last)


def test_what_lerobot_wrote_is_read(theirs):
    assert observation_keys(theirs) == [STATE, ENVIRONMENT]
    found = load_sequences(theirs, [ENVIRONMENT, STATE], FRAMES, HORIZON, None)
    frames, actions = (np.concatenate(parts) for parts in zip(*map(expected, range(3)), strict=True))
    assert len(found) == 16 and found.action.shape == (16, HORIZON, 2) and found.action.dtype == torch.float32
    np.testing.assert_array_equal(found.observation[ENVIRONMENT][..., 0], frames)
    np.testing.assert_array_equal(found.action[..., 0], actions)
    episode = np.repeat([0, 1, 2], LENGTHS)[:, None]
    np.testing.assert_array_equal(found.observation[STATE][..., 1], 100 + np.repeat(episode, FRAMES, 1))
    np.testing.assert_array_equal(found.observation[STATE][..., 2], frames + episode)


def test_a_share_of_the_episodes_is_held_out(theirs):
    train, valid, everything = (
        load_sequences(theirs, [STATE], FRAMES, HORIZON, split, validation=0.4) for split in ("train", "valid", None)
    )
    seen = [set(part.observation[STATE][:, 0, 1].tolist()) for part in (train, valid, everything)]
    assert len(seen[1]) == 1 and seen[0] | seen[1] == seen[2] == {100, 101, 102} and not seen[0] & seen[1]
    again = load_sequences(theirs, [STATE], FRAMES, HORIZON, "valid", validation=0.4)
    torch.testing.assert_close(again.action, valid.action)


def test_the_data_sets_own_splits_are_kept(theirs):
    change_info(theirs, splits={"train": "0:2", "val": "2:3"})
    assert set(load_sequences(theirs, [STATE], 1, 4, "valid").observation[STATE][:, 0, 1].tolist()) == {102}
    assert set(load_sequences(theirs, [STATE], 1, 4, "train").observation[STATE][:, 0, 1].tolist()) == {100, 101}
    with pytest.raises(SpecpolicyError, match="no split 'test'"):
        load_sequences(theirs, [STATE], 1, 4, "test")
    for wrong in ("all", "7:9"):
        change_info(theirs, splits={"train": "0:2", "val": wrong})
        with pytest.raises(SpecpolicyError, match="split 'val'"):
            load_sequences(theirs, [STATE], 1, 4, "valid")


def test_rows_may_be_in_any_order_and_in_any_files(tmp_path):
    root = Path(shutil.copytree(HERE / "lerobot_dataset_v3", tmp_path / "data"))
    before = load_sequences(root, [STATE], FRAMES, HORIZON, None)
    file = root / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    rows = np.random.default_rng(0).permutation(len(table))
    parquet.write_table(table.take(rows[:9]), file)
    (root / "data/chunk-001").mkdir()
    parquet.write_table(table.take(rows[9:]), root / "data/chunk-001/file-000.parquet")
    after = load_sequences(root, [STATE], FRAMES, HORIZON, None)
    torch.testing.assert_close(after.observation[STATE], before.observation[STATE])
    torch.testing.assert_close(after.action, before.action)


def change_info(root, **fields):
    file = root / "meta/info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def first(root):
    return sorted((root / "data").rglob("*.parquet"))[0]


def change_table(root, change):
    file = first(root)
    parquet.write_table(change(parquet.read_table(file)), file)


def nan(table):
    column = table.column_names.index("action")
    values = np.array(table.column("action").to_pylist(), np.float32)
    values[1, 1] = np.nan
    return table.set_column(column, "action", [values.tolist()])


def ragged(table):
    column = table.column_names.index("action")
    return table.set_column(column, "action", [[[0.0] * (1 + row % 2) for row in range(len(table))]])


def text(table):
    return table.set_column(table.column_names.index("action"), "action", [["a"] * len(table)])


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda root: shutil.rmtree(root / "data"), "no parquet files"),
        (lambda root: first(root).write_bytes(b"version https://git-lfs"), "cannot be read"),
        (lambda root: change_table(root, lambda table: table.slice(1)), "of the 16 frames"),
        (lambda root: change_table(root, lambda table: table.drop_columns(["action"])), "no column 'action'"),
        (lambda root: change_table(root, nan), "'action' has values that are not finite"),
        (lambda root: change_table(root, ragged), "'action' differ in length"),
        (lambda root: change_table(root, text), "'action' holds string"),
        (lambda root: (root / "meta/info.json").write_text("{"), "is not valid JSON"),
        (lambda root: (root / "meta/info.json").write_text("[]"), "in place of an object"),
        (lambda root: change_info(root, codebase_version="v1.6"), "version 'v1.6' is not known"),
        (lambda root: change_info(root, features={}), "lists no feature 'action'"),
        (lambda root: (root / "meta/specpolicy.json").write_text('{"observation": {"a": 3}}'), "is damaged"),
    ],
)  # fmt: skip
def test_a_broken_data_set_is_one_clear_line(theirs, change, complaint):
    change(theirs)
    with pytest.raises(SpecpolicyError, match=complaint) as caught:
        load_sequences(theirs, [STATE], FRAMES, HORIZON, None)
    assert "\n" not in str(caught.value)


def test_a_wrong_key_and_an_image_are_said(theirs):
    with pytest.raises(SpecpolicyError, match=r"no observation 'position' \(it has observation\.state"):
        load_sequences(theirs, ["position"], FRAMES, HORIZON)
    info = json.loads((theirs / "meta/info.json").read_text())["features"]
    change_info(theirs, features={**info, "observation.images.top": {"dtype": "video", "shape": [3, 9, 9]}})
    assert observation_keys(theirs) == [STATE, ENVIRONMENT]
    with pytest.raises(SpecpolicyError, match=r"holds video: only vectors.*use_videos=False"):
        load_sequences(theirs, ["observation.images.top"], FRAMES, HORIZON)


def test_what_is_no_data_set_is_said(tmp_path):
    with pytest.raises(SpecpolicyError, match="holds no data set"):
        load_sequences(tmp_path, [STATE], FRAMES, HORIZON)
    with pytest.raises(SpecpolicyError, match="no demonstrations at"):
        observation_keys(tmp_path / "absent")
