"""Training windows: what is read of a file of known numbers, and one line for each broken file."""

import h5py
import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.data.dataset import load_sequences

LENGTHS = (5, 9)
HORIZON, FRAMES = 6, 2


@pytest.fixture
def path(tmp_path):
    """Two demonstrations whose numbers say which demonstration and which step they belong to."""
    path = tmp_path / "demos.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(LENGTHS)
        for demo, length in enumerate(LENGTHS):
            group = data.create_group(f"demo_{demo}")
            group.attrs["num_samples"] = length
            steps = np.arange(length, dtype=np.float64)[:, None]
            group["actions"] = np.hstack([100 * demo + steps, -steps])
            group["obs/position"] = 1000 + 100 * demo + steps
            group["obs/object"] = np.hstack([steps, steps, steps])
        file["mask/train"] = np.array([b"demo_0"])
        file["mask/valid"] = np.array([b"demo_1"])
    return path


def expected(demo, length):
    """The windows of one demonstration, by the definition in `load_sequences`."""
    steps = np.arange(length)[:, None]
    frames = np.clip(steps + np.arange(-FRAMES + 1, 1), 0, length - 1)
    actions = np.clip(steps + np.arange(-FRAMES + 1, HORIZON - FRAMES + 1), 0, length - 1)
    return 1000.0 + 100 * demo + frames, 100.0 * demo + actions


@pytest.mark.parametrize("split, demos", (("train", (0,)), ("valid", (1,)), (None, (0, 1))))
def test_windows_are_those_of_the_definition(path, split, demos):
    sequences = load_sequences(path, ["object", "position"], FRAMES, HORIZON, split)
    frames, actions = (np.concatenate(parts) for parts in zip(*(expected(d, LENGTHS[d]) for d in demos), strict=True))
    assert len(sequences) == sum(LENGTHS[demo] for demo in demos)
    assert list(sequences.observation) == ["object", "position"]
    assert sequences.observation["object"].shape[1:] == (FRAMES, 3)
    np.testing.assert_array_equal(sequences.observation["position"][..., 0].numpy(), frames)
    np.testing.assert_array_equal(sequences.action[..., 0].numpy(), actions)
    assert sequences.action.dtype == torch.float32


def test_ranges_are_the_extremes_of_each_dimension(path):
    ranges = load_sequences(path, ["object"], FRAMES, HORIZON, "valid").ranges()
    assert [part.tolist() for part in ranges["object"]] == [[0, 0, 0], [8, 8, 8]]
    assert [part.tolist() for part in ranges["action"]] == [[100, -8], [108, 0]]


def drop(name):
    def change(file):
        del file[name]

    return change


def replace(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


@pytest.mark.parametrize(
    "change, word",
    (
        (drop("data/demo_1/obs/object"), "demo_1/obs has no key 'object'"),
        (drop("data/demo_0/actions"), "lacks 'actions'"),
        (drop("mask/train"), "mask/train"),
        (drop("data"), "no demonstrations"),
        (replace("data/demo_1/actions", np.zeros((9, 3))), r"demo_1/actions has shape \(9, 3\)"),
        (replace("data/demo_0/obs/object", np.zeros((4, 3))), r"demo_0/obs/object has shape \(4, 3\)"),
        (replace("data/demo_0/obs/object", np.full((5, 3), np.nan)), "not finite"),
        (replace("data/demo_1/obs/object", np.zeros((9, 4))), r"demo_1/obs/object has shape \(9, 4\)"),
    ),
)
def test_a_broken_file_is_one_clear_line(path, change, word):
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(SpecpolicyError, match=word) as error:
        load_sequences(path, ["object"], FRAMES, HORIZON, "train")
    assert "\n" not in str(error.value)


def test_no_file_and_no_hdf5(tmp_path):
    with pytest.raises(SpecpolicyError, match="no demonstrations at"):
        load_sequences(tmp_path / "absent.hdf5", ["object"], FRAMES, HORIZON)
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(SpecpolicyError, match="not a readable HDF5"):
        load_sequences(tmp_path / "text.hdf5", ["object"], FRAMES, HORIZON)
