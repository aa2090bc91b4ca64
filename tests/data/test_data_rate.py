"""The rate of the data: read from the files, compared with the task's, and kept by the checkpoint."""

import json

import h5py
import pytest
from written import KEY, LENGTHS, change_info, write, write_lerobot, write_robomimic, write_zarr

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cli import main
from specpolicy.data.dataset import read_data
from specpolicy.data.rate import settle_rate

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

ROWS = sum(LENGTHS)
TINY = [
    "task=gym",
    "task.id=Pendulum-v1",  # 20 control steps per second
    f"task.observation_keys=[{KEY}]",
    "policy.network.down_dims=[8,16]",
    "policy.network.n_groups=4",
    "policy.horizon=4",
    "policy.n_action_steps=2",
    "steps=1",
    "batch_size=4",
    "threads=1",
]


def train(data, output, *more):
    return main(["train", *TINY, f"data={data}", f"output={output}", *more])


@pytest.mark.parametrize("kind", ["robomimic", "lerobot 2", "lerobot 3"])
@pytest.mark.parametrize("hz", [None, 10, 12.5, 30])
def test_the_files_say_their_rate(tmp_path, kind, hz):
    assert read_data(write(kind, tmp_path, hz=hz), [KEY]).hz == hz


def test_what_the_collector_writes_says_it_too(tmp_path):
    path = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["control_hz"] = 10.0
    assert read_data(path, [KEY]).hz == 10
    assert read_data(write_zarr(tmp_path / "replay.zarr"), [KEY]).hz is None


@pytest.mark.parametrize(
    "text", ["", " ", "{}", "null", '{"env_kwargs": null}', '{"env_kwargs": {"control_freq": null}}']
)
def test_a_description_of_an_environment_may_say_nothing(tmp_path, text):
    path = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = text
    assert read_data(path, [KEY]).hz is None


def test_a_videos_own_rate_is_not_that_of_the_data(tmp_path):
    root = write_lerobot(tmp_path / "data", hz=10)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    video = {"dtype": "video", "shape": [9, 9, 3], "info": {"video.fps": 30.0}}
    change_info(root, features={**features, "observation.images.top": video})
    assert read_data(root, [KEY]).hz == 10


@pytest.mark.parametrize(
    "data_hz, task_hz, options, expected",
    [
        (20, 20, {}, (20, 1)),
        (None, 20, {}, (None, 1)),
        (20, None, {}, (20, 1)),
        (None, None, {}, (None, 1)),
        (29.97, 30, {}, (29.97, 1)),
        (10, 20, {"any_rate": True}, (10, 1)),
        (20, 20, {"resample": True}, (20, 1)),
        (60, 20, {"resample": True}, (20, 3)),
        (60, 20, {"resample": True, "any_rate": True}, (20, 3)),
        (10, 20, {}, "data has 10 .* task 20: any_rate=true"),
        (30, 20, {}, "data has 30 .* task 20: any_rate=true"),
        (40, 20, {}, "resample=true takes every second frame, any_rate=true trains a policy of 40 Hz"),
        (100, 20, {}, "every 5th frame"),
        (10, 20, {"resample": True}, "20 Hz cannot be made of 10 Hz"),
        (50, 20, {"resample": True}, "20 Hz cannot be made of 50 Hz"),
        (None, 20, {"resample": True}, "give data_hz="),
        (20, None, {"resample": True}, "task's control steps per second are not known"),
    ],
)
def test_what_becomes_of_two_rates(data_hz, task_hz, options, expected):
    if isinstance(expected, tuple):
        assert settle_rate(data_hz, task_hz, **options) == expected
    else:
        with pytest.raises(SpecpolicyError, match=expected):
            settle_rate(data_hz, task_hz, **options)


@pytest.mark.parametrize("kind", ["robomimic", "lerobot 2", "lerobot 3"])
def test_data_of_another_rate_are_not_trained_on(tmp_path, capsys, kind):
    data = write(kind, tmp_path, hz=10)
    assert train(data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "the data has 10 control steps per second, the task 20" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert train(data, tmp_path / "out", "any_rate=true") == 0
    assert load_policy(tmp_path / "out").control_hz == 10


@pytest.mark.parametrize("kind", ["robomimic", "lerobot 2", "lerobot 3"])
def test_the_checkpoint_keeps_the_rate(tmp_path, kind):
    assert train(write(kind, tmp_path, hz=20), tmp_path / "out") == 0
    assert load_policy(tmp_path / "out").control_hz == 20


@pytest.mark.parametrize("hz, stride", [(20, 1), (40, 2), (60, 3)])
def test_frames_are_left_out_where_that_is_asked_for(tmp_path, capsys, hz, stride):
    assert train(write_lerobot(tmp_path / "data", hz=hz), tmp_path / "out", "resample=true") == 0
    printed = capsys.readouterr().out.split()
    windows = int(printed[printed.index("windows,") - 1])
    held_out = [-(-length // stride) for length in LENGTHS]
    assert windows in {sum(held_out) - one for one in held_out}
    assert load_policy(tmp_path / "out").control_hz == 20


def test_the_user_says_it_where_the_data_do_not(tmp_path, capsys):
    data = write_zarr(tmp_path / "replay.zarr")
    assert train(data, tmp_path / "unknown") == 0
    assert "does not say its control steps per second" in capsys.readouterr().out
    assert load_policy(tmp_path / "unknown").control_hz is None
    assert train(data, tmp_path / "told", "data_hz=20") == 0
    assert load_policy(tmp_path / "told").control_hz == 20
    assert train(data, tmp_path / "other", "data_hz=10") == 2
    assert train(data, tmp_path / "other", "resample=true") == 2
    assert train(data, tmp_path / "other", "data_hz=-3") == 2
    assert not (tmp_path / "other").exists()
    capsys.readouterr()
    assert train(write_lerobot(tmp_path / "lerobot", hz=20), tmp_path / "other", "data_hz=30") == 2
    assert "data_hz say 20 and 30" in capsys.readouterr().err


def test_a_task_that_is_not_installed_here_is_said(tmp_path, capsys):
    assert train(write_lerobot(tmp_path / "data", hz=30), tmp_path / "out", "task.id=far_away:Robot-v0") == 0
    assert "30.0 Hz, is compared with no task's" in capsys.readouterr().out
    assert load_policy(tmp_path / "out").control_hz == 30


@pytest.mark.parametrize("file_format", ["hdf5", "lerobot"])
@pytest.mark.parametrize("hz", [12.5, 30.0])
def test_collections_say_the_rate_of_their_environment(tmp_path, monkeypatch, file_format, hz):
    import reach_env

    monkeypatch.setattr(reach_env.Reach, "metadata", {"render_modes": [], "render_fps": hz})
    output = tmp_path / ("demos" if file_format == "lerobot" else "demos.hdf5")
    settings = ["task=gym", "task.id=reach_env:Reach-v0", "expert=reach_env:make_expert", "episodes=2", "workers=0"]
    assert main(["collect", *settings, f"format={file_format}", f"output={output}"]) == 0
    data = read_data(output, ["position"])
    assert data.hz == hz
    if file_format == "lerobot":
        assert json.loads((output / "meta/info.json").read_text())["fps"] == hz


@pytest.mark.parametrize("file_format", ["hdf5", "lerobot"])
def test_collections_say_no_rate_that_nobody_knows(tmp_path, monkeypatch, capsys, file_format):
    import reach_env

    monkeypatch.setattr(reach_env.Reach, "metadata", {"render_modes": []})
    output = tmp_path / ("demos" if file_format == "lerobot" else "demos.hdf5")
    settings = ["task=gym", "task.id=reach_env:Reach-v0", "expert=reach_env:make_expert", "episodes=2", "workers=0"]
    code = main(["collect", *settings, f"format={file_format}", f"output={output}"])
    if file_format == "lerobot":
        assert code == 2 and "LeRobot's format needs" in capsys.readouterr().err
    else:
        assert code == 0 and read_data(output, ["position"]).hz is None


@pytest.mark.parametrize(
    "other, named", [(["data_hz=20", "pad_after=1"], "pad_after"), (["data_hz=30", "any_rate=true"], "control_hz")]
)
def test_a_run_does_not_go_on_with_other_windows_or_another_rate(tmp_path, capsys, other, named):
    data = write_zarr(tmp_path / "replay.zarr")
    assert train(data, tmp_path / "out", "data_hz=20") == 0
    capsys.readouterr()
    assert train(data, tmp_path / "out", *other) == 2
    error = capsys.readouterr().err
    assert f"a run with another {named}" in error and error.count("\n") == 1
    assert load_policy(tmp_path / "out").control_hz == 20
