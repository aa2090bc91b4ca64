"""robomimic's own readers take what collect writes."""

import json

import h5py
import numpy as np
import pytest
import torch

from specpolicy.cli import main

pytest.importorskip("robomimic", reason="needs specpolicy[dev]")
try:
    import torchvision  # noqa: F401
except RuntimeError:
    # PyPI's torchvision is built for CUDA and lacks its operators beside a CPU build of torch. robomimic's
    # file functions import it without calling any, so declaring the names is enough to load them.
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")

from robomimic.utils import env_utils, file_utils, obs_utils
from robomimic.utils.dataset import SequenceDataset

SHAPES = {"robot0_eef_pos": [3], "robot0_eef_quat": [4], "robot0_gripper_qpos": [2], "object": [10]}
KEYS = tuple(SHAPES)


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("lift") / "lift.hdf5"
    arguments = ["task=lift", "episodes=3", "workers=0", "validation=0.3", f"output={path}"]
    assert main(["collect", *arguments]) == 0
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(KEYS)}})
    return path


def test_environment_metadata(dataset_path):
    found = file_utils.get_env_metadata_from_dataset(str(dataset_path))
    assert found["env_name"] == "Lift"
    assert env_utils.is_robosuite_env(found)
    assert env_utils.get_env_type(found) == found["type"]
    assert found["env_kwargs"]["control_freq"] == 20


def test_shape_metadata(dataset_path):
    found = file_utils.get_shape_metadata_from_dataset(str(dataset_path), all_obs_keys=KEYS)
    assert found["ac_dim"] == 7
    assert {key: list(shape) for key, shape in found["all_shapes"].items()} == SHAPES


@pytest.mark.parametrize("mask", ["train", "valid"])
def test_sequence_dataset_reads_windows(dataset_path, mask):
    dataset = SequenceDataset(
        hdf5_path=str(dataset_path),
        obs_keys=KEYS,
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=2,
        seq_length=16,
        hdf5_cache_mode="all",
        filter_by_attribute=mask,
    )
    with h5py.File(dataset_path) as file:
        names = [name.decode() for name in file[f"mask/{mask}"]]
        lengths = [file[f"data/{name}"].attrs["num_samples"] for name in names]
        first = file[f"data/{names[0]}/actions"][()]
        assert not np.array_equal(file[f"data/{names[0]}/executed_actions"], first)  # which robomimic leaves alone
    assert len(dataset) == sum(lengths)
    window = dataset[5]
    assert window["obs"]["object"].shape == (17, 10)
    assert window["actions"].shape == (17, 7)
    np.testing.assert_array_equal(window["actions"], first[4:21])  # one frame of history, then 16


def test_settings_are_kept_with_the_data(dataset_path):
    with h5py.File(dataset_path) as file:
        task = json.loads(file["data"].attrs["task"])
        collection = json.loads(file["data"].attrs["collection"])
    assert task["id"] == "specpolicy/Lift-v0"
    assert (collection["episodes"], collection["seed"], collection["noise"]) == (3, 0, 0.15)
    assert "episodes: 3" in dataset_path.with_suffix(".yaml").read_text()
