"""diffusion_policy's replay buffers: what is in them is read, and what is wrong with them is said in one line."""

import shutil

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cli import main
from specpolicy.data.dataset import load_sequences, observation_keys

zarr = pytest.importorskip("zarr")

ENDS = (4, 9, 12)
FRAMES, HORIZON = 2, 6


def write(path, version=2, **changes):
    """A buffer whose numbers say which step they belong to, in the format (2) of the project's own files."""
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    step = np.arange(12, dtype=np.float32)
    arrays = {
        "data/action": np.stack([step, -step], axis=1),
        "data/state": np.stack([step] * 5, axis=1) + np.arange(5, dtype=np.float32) / 10,
        "data/keypoint": np.repeat(step, 18).reshape(12, 9, 2),
        "data/n_contacts": step[:, None],
        "data/img": np.zeros((12, 24, 24, 3), np.float32),
        "meta/episode_ends": np.array(ENDS),
    } | {name.replace("__", "/"): value for name, value in changes.items()}
    for name, value in arrays.items():
        if value is not None:
            group, _, leaf = name.partition("/")
            root.require_group(group)[leaf] = value
    return path


@pytest.fixture(params=("directory", "zip", "version 3"))
def buffer(request, tmp_path):
    path = write(tmp_path / "replay.zarr", 3 if request.param == "version 3" else 2)
    if request.param == "zip":
        return shutil.make_archive(str(path), "zip", path)
    return path


def test_what_is_in_a_buffer_is_read(buffer):
    assert observation_keys(buffer) == ["keypoint", "n_contacts", "state"]
    found = load_sequences(buffer, ["keypoint", "state"], FRAMES, HORIZON, None)
    assert found.observation["keypoint"].shape == (12, FRAMES, 18) and found.action.shape == (12, HORIZON, 2)
    for begin, end in ((0, 4), (4, 9), (9, 12)):
        step = np.arange(begin, end)[:, None]
        frames, actions = step + np.array([-1, 0]), step + np.arange(-1, HORIZON - 1)
        rows = slice(begin, end)
        np.testing.assert_array_equal(found.observation["state"][rows, :, 0], np.clip(frames, begin, end - 1))
        np.testing.assert_array_equal(found.observation["keypoint"][rows, :, 17], np.clip(frames, begin, end - 1))
        np.testing.assert_array_equal(found.action[rows, :, 1], -np.clip(actions, begin, end - 1))


def test_whole_episodes_are_held_out(buffer):
    train, valid = (load_sequences(buffer, ["state"], FRAMES, HORIZON, split) for split in ("train", "valid"))
    lengths = np.diff(ENDS, prepend=0)
    assert len(valid) in lengths and len(train) + len(valid) == 12
    steps = [set(part.action[..., 0].flatten().tolist()) for part in (train, valid)]
    assert not steps[0] & steps[1] and steps[0] | steps[1] == set(range(12))
    torch.testing.assert_close(load_sequences(buffer, ["state"], FRAMES, HORIZON, "valid").action, valid.action)


@pytest.mark.parametrize(
    "changes, key, complaint",
    [
        ({}, "img", "no vectors data/img .it has keypoint, n_contacts, state"),
        ({}, "position", "no vectors data/position"),
        ({}, "action", "no vectors data/action"),
        ({"data__action": None}, "state", "no replay buffer"),
        ({"meta__episode_ends": None}, "state", "no replay buffer"),
        ({"meta__episode_ends": np.array([4, 4, 12])}, "state", "must be rising"),
        ({"meta__episode_ends": np.array([0.5, 12.0])}, "state", "must be rising"),
        ({"meta__episode_ends": np.array([4, 20])}, "state", "data/action has 12 rows, meta/episode_ends says 20"),
        ({"meta__episode_ends": np.array([12])}, "state", "has one episode"),
        ({"data__state": np.zeros((7, 5))}, "state", "data/state has 7 rows"),
        ({"data__state": np.full((12, 5), np.inf)}, "state", "data/state has values that are not finite"),
    ],
)
def test_a_broken_buffer_is_one_clear_line(tmp_path, changes, key, complaint):
    path = write(tmp_path / "replay.zarr", **changes)
    with pytest.raises(SpecpolicyError, match=complaint) as caught:
        load_sequences(path, [key], FRAMES, HORIZON)
    assert "\n" not in str(caught.value)


def test_damaged_files_and_wrong_settings(tmp_path):
    path = write(tmp_path / "replay.zarr")
    with pytest.raises(SpecpolicyError, match="no split 'test'"):
        load_sequences(path, ["state"], FRAMES, HORIZON, "test")
    with pytest.raises(SpecpolicyError, match="validation=1"):
        load_sequences(path, ["state"], FRAMES, HORIZON, validation=1.0)
    (tmp_path / "replay.zarr.zip").write_bytes(b"PK no zip")
    with pytest.raises(SpecpolicyError, match="no replay buffer"):
        observation_keys(tmp_path / "replay.zarr.zip")
    chunk = next(file for file in (path / "data/state").rglob("*") if file.name[0] != "." and file.is_file())
    chunk.write_bytes(b"rubbish")
    with pytest.raises(SpecpolicyError, match="data/state cannot be read"):
        load_sequences(path, ["state"], FRAMES, HORIZON)


def test_train_reads_a_buffer(tmp_path):
    path = write(tmp_path / "replay.zarr")
    task = ["task=gym", "task.id=Any-v0", "task.observation_keys=[keypoint,state]"]
    small = ["policy.network.down_dims=[8,16]", "policy.network.n_groups=4", "steps=2", "batch_size=4", "threads=1"]
    assert main(["train", *task, f"data={path}", f"output={tmp_path / 'out'}", "validation=0.3", *small]) == 0
    policy = load_policy(tmp_path / "out")
    assert policy.encoder.shapes == {"keypoint": 18, "state": 5}
