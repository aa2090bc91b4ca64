"""What was executed is stored beside the labels, in both formats, and windows offer it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from written import KEY, LENGTHS, write_robomimic

from specpolicy import SpecpolicyError
from specpolicy.data.collect import collect
from specpolicy.data.dataset import load_sequences, observation_keys, read_data, windows
from specpolicy.data.recorder import Recorder, Recording
from specpolicy.data.robomimic_hdf5 import Demonstration, write_part

HERE = Path(__file__).parent
FRAMES, HORIZON = 2, 5


@pytest.fixture(autouse=True)
def _reach(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def reach(noise=0.1):
    task = {"id": "reach_env:Reach-v0", "name": "reach"}
    return Recording(json.dumps(task), noise, 0, 60.0, "reach_env:make_expert")


def test_the_recorder_keeps_what_the_environment_was_given():
    recorder = Recorder(reach())
    seen = recorder.env.unwrapped.executed
    demonstration = recorder.record(3)
    np.testing.assert_array_equal(demonstration.executed, np.stack(seen))
    assert demonstration.executed.dtype == np.float32
    # The state moves by what was executed, not by the label.
    moved = np.diff(demonstration.observations["position"], axis=0)
    np.testing.assert_allclose(moved, demonstration.executed, atol=1e-6)
    assert np.abs(moved - demonstration.actions).max() > 0.01


def test_without_noise_the_labels_are_executed():
    demonstration = Recorder(reach(noise=0.0)).record(0)
    np.testing.assert_array_equal(demonstration.executed, demonstration.actions)


@pytest.mark.parametrize("file_format", ["hdf5", "lerobot"])
def test_what_was_executed_comes_back(tmp_path, file_format):
    if file_format == "lerobot":
        pytest.importorskip("pyarrow")
    path = tmp_path / ("reach.hdf5" if file_format == "hdf5" else "reach")
    collect(reach(), 6, path, file_format=file_format)
    assert observation_keys(path) == ["goal", "position"]
    data = read_data(path, ["position"])
    for episode in data.episodes.values():
        moved = np.diff(episode.observation["position"], axis=0)
        np.testing.assert_allclose(moved, episode.executed[:-1], atol=1e-6)
        assert np.abs(moved - episode.action[:-1]).max() > 0.01
    found = windows(data, FRAMES, HORIZON, None)
    first = next(iter(data.episodes.values()))
    # Window 2: the entries of steps 1 to 5, the frames of steps 1 and 2.
    np.testing.assert_array_equal(found.executed[2], first.executed[1:6])
    np.testing.assert_array_equal(found.action[2], first.action[1:6])
    np.testing.assert_array_equal(found.observation["position"][2], first.observation["position"][1:3])
    every_third = windows(data, FRAMES, HORIZON, None, stride=3)
    np.testing.assert_array_equal(every_third.executed[0, 1:3], first.executed[::3][:2])


def test_lerobot_does_not_take_it_for_one_more_output(tmp_path):
    """Every feature whose name begins with "action" is an output of LeRobot's policies, each other one but the
    observations is left alone."""
    pytest.importorskip("pyarrow")
    collect(reach(), 2, tmp_path / "reach", file_format="lerobot")
    features = json.loads((tmp_path / "reach/meta/info.json").read_text())["features"]
    assert [name for name in features if name.startswith("action")] == ["action"]
    assert features["executed_action"] == features["action"] == {"dtype": "float32", "shape": [2], "names": None}
    assert json.loads((tmp_path / "reach/meta/stats.json").read_text())["executed_action"]["count"] > [0]


def test_data_of_others_do_not_say_it(tmp_path):
    path = write_robomimic(tmp_path / "demos.hdf5")
    assert load_sequences(path, [KEY], FRAMES, HORIZON, None).executed is None
    before = read_data(path, [KEY]).fingerprint
    with h5py.File(path, "a") as file:
        file["data/demo_1/executed_actions"] = file["data/demo_1/actions"][()] + 0.5
    data = read_data(path, [KEY])
    assert data.fingerprint != before
    found = windows(data, FRAMES, HORIZON, None)  # of the other episodes the labels are taken
    changed = (found.executed - found.action).flatten(1)
    torch.testing.assert_close(changed[: LENGTHS[0]], torch.zeros(LENGTHS[0], 2 * HORIZON))
    second = slice(LENGTHS[0], LENGTHS[0] + LENGTHS[1])
    torch.testing.assert_close(changed[second], torch.full((LENGTHS[1], 2 * HORIZON), 0.5))


@pytest.mark.parametrize("shape", [(LENGTHS[2], 3), (LENGTHS[2] - 1, 2), (LENGTHS[2], 2, 1)])
def test_executed_actions_of_another_shape_are_refused(tmp_path, shape):
    path = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_2/executed_actions"] = np.zeros(shape)
    with pytest.raises(SpecpolicyError, match=r"demo_2/executed_actions has shape .*, expected \(4, 2\)"):
        read_data(path, [KEY])


def test_attempts_of_an_earlier_version_go_on(tmp_path):
    """Their parts lack what was executed: LeRobot's columns are the same in all episodes, so the labels stand there."""
    pytest.importorskip("pyarrow")
    from specpolicy.data.lerobot_writer import write_lerobot

    parts = [tmp_path / f"part_{number}.hdf5" for number in range(2)]
    dones = np.array([0, 0, 1])
    for number, part in enumerate(parts):
        actions = np.full((3, 2), number, np.float32)
        seen = {"position": np.zeros((4, 2), np.float32)}
        one = Demonstration(actions, np.zeros((3, 0)), np.zeros(3), dones, seen, True, executed=actions + 0.5)
        write_part(part, one, True)
    with h5py.File(parts[0], "a") as file:
        del file["demo/executed_actions"]
    write_lerobot(tmp_path / "ours", parts, {}, {"task": {}, "collection": {}}, [], 20.0)
    first, second = read_data(tmp_path / "ours", ["position"]).episodes.values()
    np.testing.assert_array_equal(first.executed, first.action)
    np.testing.assert_array_equal(second.executed, second.action + 0.5)
