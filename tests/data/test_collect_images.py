"""Demonstrations with images: robomimic's own readers take them; killed and resumed they are the same."""

import json

import h5py
import numpy as np
import pytest
import torch

from specpolicy.cli import main
from specpolicy.cluster import Processes
from specpolicy.data.collect import collect
from specpolicy.data.recorder import Recorder, Recording

pytest.importorskip("specpolicy_envs.rendering")

SIZE = (36, 40)
LIFT = {"name": "lift", "id": "specpolicy/Lift-v0", "kwargs": {}, "cameras": ["agentview", "robot0_eye_in_hand"]}
PUSH_T = {"name": "push_t", "id": "specpolicy/PushT-v0", "kwargs": {}, "cameras": ["top"]}


pytestmark = pytest.mark.usefixtures("drawing")


def recording(task, **changes):
    return Recording(json.dumps({**task, "camera_size": SIZE, **changes}, sort_keys=True), 0.15, 0, 2.0)


@pytest.fixture(scope="module")
def lift(tmp_path_factory):
    """Two demonstrations, as the command line records them."""
    path = tmp_path_factory.mktemp("images") / "lift.hdf5"
    task = ["task=lift", "task.cameras=[agentview,robot0_eye_in_hand]", f"task.camera_size=[{SIZE[0]},{SIZE[1]}]"]
    arguments = ["episodes=2", "workers=0", "validation=0.4", "max_seconds=2", "keep_failures=true"]
    assert main(["collect", *task, *arguments, f"output={path}"]) == 0
    return path


def test_images_are_what_was_seen_packed_a_frame_at_a_time(lift):
    recorder = Recorder(recording(LIFT))
    expected = recorder.record(1)
    recorder.close()
    with h5py.File(lift) as file:
        demo = file["data/demo_1"]
        for name in LIFT["cameras"]:
            images = demo[f"obs/{name}_image"]
            assert images.dtype == np.uint8 and images.shape == (len(expected), *SIZE, 3)
            assert images.chunks == (1, *SIZE, 3) and images.compression == "gzip"
            np.testing.assert_array_equal(images[()], expected.observations[f"{name}_image"][:-1])
        assert set(demo["next_obs"]) == {"object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"}
        assert json.loads(file["data"].attrs["task"])["cameras"] == LIFT["cameras"]


def test_robomimic_reads_them(lift):
    pytest.importorskip("robomimic", reason="needs specpolicy[dev]")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # see test_robomimic.py
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
    from robomimic.utils import env_utils, file_utils, obs_utils
    from robomimic.utils.dataset import SequenceDataset

    keys = ["agentview_image", "robot0_eye_in_hand_image", "robot0_eef_pos"]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"rgb": keys[:2], "low_dim": keys[2:]}})
    env = file_utils.get_env_metadata_from_dataset(str(lift))
    assert env_utils.is_robosuite_env(env)
    kwargs = env["env_kwargs"]
    assert kwargs["camera_names"] == LIFT["cameras"] and kwargs["use_camera_obs"] and kwargs["has_offscreen_renderer"]
    assert (kwargs["camera_heights"], kwargs["camera_widths"], kwargs["camera_depths"]) == (*SIZE, False)
    found = file_utils.get_shape_metadata_from_dataset(str(lift), all_obs_keys=keys)
    assert found["use_images"] and list(found["all_shapes"]["agentview_image"]) == [3, *SIZE]  # as its networks see it
    dataset = SequenceDataset(
        hdf5_path=str(lift),
        obs_keys=keys,
        dataset_keys=("actions",),
        frame_stack=2,
        seq_length=4,
        hdf5_cache_mode=None,
        load_next_obs=False,
    )
    with h5py.File(lift) as file:
        first, second = (file[f"data/demo_{number}/obs/agentview_image"][()] for number in (0, 1))
    item = dataset[len(first) + 7]["obs"]["agentview_image"]
    np.testing.assert_array_equal(item, second[6:11])
    np.testing.assert_array_equal(dataset[0]["obs"]["agentview_image"], first[[0, 0, 1, 2, 3]])


def arrays(path):
    """Every dataset of a file by name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_interrupted_and_resumed_in_other_processes_the_file_is_the_same(tmp_path):
    whole, resumed = tmp_path / "whole.hdf5", tmp_path / "resumed.hdf5"
    collect(recording(PUSH_T), 3, whole, keep_failures=True)
    attempts = []

    def interrupt(kept, success):
        attempts.append(kept)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(recording(PUSH_T), 3, resumed, keep_failures=True, on_attempt=interrupt)
    assert len(attempts) == 1 and not resumed.exists()
    collect(recording(PUSH_T), 3, resumed, crew=Processes(1), keep_failures=True)
    one, other = arrays(whole), arrays(resumed)
    assert one.keys() == other.keys() and "data/demo_2/obs/top_image" in one
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_other_cameras_are_another_collection(tmp_path, capsys):
    task = ["collect", "task=push_t", "episodes=1", "workers=0", "max_seconds=1", "keep_failures=true"]
    output = f"output={tmp_path / 'push_t.hdf5'}"
    assert main([*task, output]) == 0
    with h5py.File(tmp_path / "push_t.hdf5") as file:  # as it was before tasks had cameras
        assert set(json.loads(file["data"].attrs["task"])) == {"name", "id", "kwargs", "observation_keys"}
    assert main([*task, output]) == 0 and "complete already" in capsys.readouterr().out
    assert main([*task, "task.cameras=[top]", output]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "was made with task.camera" in line
