"""Training windows: the same for every kind of data set, and those of the projects they come from."""

import contextlib
import io

import h5py
import numpy as np
import pytest
import torch
from written import KEY, KINDS, write, write_robomimic

from specpolicy import SpecpolicyError
from specpolicy.data.dataset import load_sequences, read_data, windows

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

FRAMES, HORIZON, EXECUTED = 2, 16, 8
LONGER = (9, 12, 8, 10)


def theirs(length, pad_before, pad_after, frames=FRAMES, horizon=HORIZON):
    """(steps of the frames, steps of the actions) of the windows that begin from `pad_before` entries ahead of an
    episode on, and end up to `pad_after` entries behind it, as diffusion_policy's `SequenceSampler` has them."""
    begins = range(-pad_before, length - horizon + pad_after + 1)
    steps = np.clip([[begin + entry for entry in range(horizon)] for begin in begins], 0, length - 1)
    return steps.reshape(-1, horizon)[:, :frames], steps.reshape(-1, horizon)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pad_after, count", [(None, 20), (EXECUTED - 1, 13), (0, 6), (HORIZON - FRAMES, 20)])
def test_an_episode_of_twenty_steps(tmp_path, kind, pad_after, count):
    path = write(kind, tmp_path, lengths=[20])
    found = load_sequences(path, [KEY], FRAMES, HORIZON, None, pad_after=pad_after)
    frames, actions = theirs(20, FRAMES - 1, HORIZON - FRAMES if pad_after is None else pad_after)
    assert len(found) == len(actions) == count
    np.testing.assert_array_equal(found.observation[KEY][..., 1], frames)
    np.testing.assert_array_equal(found.action[..., 1], actions)


@pytest.mark.parametrize("pad_after", [None, 0, 3])
@pytest.mark.parametrize("split", [None, "train", "valid"])
@pytest.mark.parametrize("frames, horizon", [(1, 1), (1, 4), (2, 6), (3, 8), (4, 4)])
def test_all_kinds_have_the_same_windows(tmp_path, pad_after, split, frames, horizon):
    pad_after = None if pad_after is None else min(pad_after, horizon - frames)
    found = []
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        path = write(kind, tmp_path / kind, LONGER)
        found.append(load_sequences(path, [KEY], frames, horizon, split, 0.4, pad_after))
    for one in found[1:]:
        torch.testing.assert_close(one.action, found[0].action, rtol=0, atol=0)
        torch.testing.assert_close(one.observation, found[0].observation, rtol=0, atol=0)
    if split is None:
        padded = horizon - frames if pad_after is None else pad_after
        per_episode = [theirs(length, frames - 1, padded, frames, horizon)[1] for length in LONGER]
        np.testing.assert_array_equal(found[0].action[..., 1], np.concatenate(per_episode))


@pytest.mark.parametrize("executed", [1, 3, 8])
def test_as_many_as_lerobot_leaves(tmp_path, executed):
    """LeRobot drops the last horizon - n_action_steps - n_obs_steps + 1 frames of each episode."""
    path = write_robomimic(tmp_path / "demos.hdf5", lengths=[20, 30])
    dropped = HORIZON - executed - FRAMES + 1
    found = load_sequences(path, [KEY], FRAMES, HORIZON, None, pad_after=executed - 1)
    newest = found.observation[KEY][:, -1, 1].int().tolist()
    assert newest == [*range(20 - dropped), *range(30 - dropped)]


@pytest.mark.parametrize("frames, horizon", [(1, 1), (2, 6), (2, 16), (3, 8)])
@pytest.mark.parametrize("split", [None, "train", "valid"])
def test_the_windows_of_robomimics_own_reader(tmp_path, frames, horizon, split):
    dataset = pytest.importorskip("robomimic.utils.dataset", exc_type=ImportError)
    from robomimic.utils import obs_utils

    path = write_robomimic(tmp_path / "demos.hdf5", [5, 20, *[3] * 9], {"train": [10, 2, 1, 9, 0], "valid": [4, 3]})
    source = np.random.default_rng(0)
    with h5py.File(path, "a") as file:  # float64 numbers that float32 has to round
        for demo in file["data"].values():
            demo["actions"][:] = source.normal(size=demo["actions"].shape)
            demo["obs"]["object"] = source.normal(size=(len(demo["actions"]), 3)) * 1e3
    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": [KEY, "object"]})
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        reference = dataset.SequenceDataset(
            hdf5_path=str(path),
            obs_keys=[KEY, "object"],
            dataset_keys=("actions",),
            frame_stack=frames,
            seq_length=horizon - frames + 1,
            pad_frame_stack=True,
            pad_seq_length=True,
            load_next_obs=False,
            hdf5_cache_mode="low_dim",
            filter_by_attribute=split,
        )
    expected = [reference[index] for index in range(len(reference))]
    found = load_sequences(path, [KEY, "object"], frames, horizon, split)
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.action, np.stack([window["actions"] for window in expected]))
    for key in (KEY, "object"):
        theirs = torch.from_numpy(np.stack([window["obs"][key][:frames] for window in expected])).float()
        torch.testing.assert_close(found.observation[key], theirs, rtol=0, atol=0)


@pytest.mark.parametrize("pad_after", [-1, HORIZON - FRAMES + 1, 100])
def test_a_pad_that_is_out_of_range(tmp_path, pad_after):
    with pytest.raises(SpecpolicyError, match=rf"pad_after={pad_after}: expected 0 to 14"):
        load_sequences(write_robomimic(tmp_path / "demos.hdf5"), [KEY], FRAMES, HORIZON, None, pad_after=pad_after)


def test_episodes_that_are_too_short_for_any_window(tmp_path):
    path = write_robomimic(tmp_path / "demos.hdf5", lengths=[5, 7, 20])
    assert len(load_sequences(path, [KEY], FRAMES, HORIZON, None, pad_after=7)) == 13
    path = write_robomimic(tmp_path / "demos.hdf5", lengths=[5, 7, 6])
    with pytest.raises(SpecpolicyError, match="no episode is longer than 7 steps"):
        load_sequences(path, [KEY], FRAMES, HORIZON, None, pad_after=7)


@pytest.mark.parametrize("frames, horizon", [(4, 3), (0, 4), (2, 0)])
def test_lengths_that_make_no_window(tmp_path, frames, horizon):
    with pytest.raises(SpecpolicyError, match=f"horizon={horizon}, n_obs_steps={frames}"):
        load_sequences(write_robomimic(tmp_path / "demos.hdf5"), [KEY], frames, horizon, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_second_frame_with_its_action(tmp_path, kind, stride):
    data = read_data(write(kind, tmp_path, lengths=[9, 2]), [KEY])
    found = windows(data, 1, 2, None, stride=stride)
    steps = [*range(0, 9, stride)]
    np.testing.assert_array_equal(found.observation[KEY][: len(steps), 0, 1], steps)
    np.testing.assert_array_equal(found.action[: len(steps), :, 1], np.stack([steps, [*steps[1:], steps[-1]]], 1))
