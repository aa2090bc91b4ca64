"""Collection: what a demonstration depends on, what is stored, and what a kill or a wrong setting does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import h5py
import numpy as np
import pytest

from specpolicy.cluster import Processes
from specpolicy.data import collect as collecting
from specpolicy.data.collect import collect
from specpolicy.data.dataset import observation_keys, read_data
from specpolicy.data.recorder import Recorder, Recording, demonstration_seeds
from specpolicy.errors import SpecpolicyError

HERE = Path(__file__).parent


def reach(noise=0.1, seed=0, expert="make_clumsy_expert", **kwargs):
    task = {"name": "reach", "id": "reach_env:Reach-v0", "kwargs": kwargs, "observation_keys": None}
    return Recording(json.dumps(task, sort_keys=True), noise, seed, 60.0, f"reach_env:{expert}")


def arrays(path):
    """Every dataset of a file by name, and every attribute but the settings, in which tests differ."""
    found = {}

    def visit(name, item):
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = value
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    settings = ("task", "collection", "env_args")
    return {name: value for name, value in found.items() if name.split("@")[-1] not in settings}


def assert_same(first, second):
    first, second = arrays(first), arrays(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reach.hdf5"
    attempts = []
    collected = collect(reach(), 12, path, on_attempt=lambda kept, success: attempts.append((kept, success)))
    return path, collected, attempts


@pytest.mark.parametrize("file_format", ("hdf5", "lerobot"))
def test_an_environment_may_fill_its_arrays_anew_and_observe_a_number_by_itself(file_format, tmp_path):
    if file_format == "lerobot":
        pytest.importorskip("pyarrow")
    task = {"name": "reach", "id": "reach_env:ReusingReach-v0", "kwargs": {}, "observation_keys": None}
    output = tmp_path / "reach.hdf5"
    collect(Recording(json.dumps(task), 0.1, 0, 60.0, "reach_env:make_expert"), 2, output, file_format=file_format)
    keys = observation_keys(output)
    assert set(keys) == {"goal", "position", "step"}
    for episode in read_data(output, keys).episodes.values():
        np.testing.assert_array_equal(episode.observation["step"], np.arange(len(episode.action))[:, None])
        moved = np.diff(episode.observation["position"], axis=0)
        np.testing.assert_allclose(moved, episode.executed[:-1], atol=1e-6)


def test_a_part_that_a_crash_cut_short_is_made_again(reference, tmp_path, monkeypatch):
    output = tmp_path / "reach.hdf5"

    def stop(kept, success):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(reach(), 12, output, on_attempt=stop)
    (part,) = (tmp_path / "reach.hdf5.parts").glob("attempt_*.hdf5")
    whole = part.read_bytes()
    part.write_bytes(b"")
    with monkeypatch.context() as patch, pytest.raises(PermissionError):  # such a file may be whole
        patch.setattr(collecting, "read_part", Mock(side_effect=PermissionError(13, "Permission denied")))
        collect(reach(), 12, output)
    part.write_bytes(whole[: len(whole) // 2])
    collect(reach(), 12, output)
    assert_same(output, reference[0])


def test_failed_attempts_are_replaced(reference):
    path, collected, attempts = reference
    assert collected.demonstrations == collected.successes == 12
    assert collected.attempts == len(attempts) > 12
    assert all(kept == success for kept, success in attempts)
    with h5py.File(path) as file:
        assert len(file["data"]) == 12
        assert all(demo.attrs["success"] for demo in file["data"].values())
        assert file["data"].attrs["total"] == sum(d.attrs["num_samples"] for d in file["data"].values())
        assert file["data"].attrs["total"] == collected.samples
    assert not path.with_name("reach.hdf5.parts").exists()


def test_masks_part_the_demonstrations(reference):
    with h5py.File(reference[0]) as file:
        train, valid = (set(file[f"mask/{name}"][()].tolist()) for name in ("train", "valid"))
        names = {name.encode() for name in file["data"]}
    assert len(valid) == 1
    assert not train & valid
    assert train | valid == names


def test_stored_episode_agrees_with_itself(reference):
    """next_obs is obs moved by one, the state is that of the same moment, the episode ends once."""
    with h5py.File(reference[0]) as file:
        for demo in file["data"].values():
            length = demo.attrs["num_samples"]
            for key in ("position", "goal"):
                obs, following = demo[f"obs/{key}"][()], demo[f"next_obs/{key}"][()]
                assert obs.dtype == np.float32
                np.testing.assert_array_equal(obs[1:], following[:-1])
            np.testing.assert_array_equal(demo["states"][:, :2].astype(np.float32), demo["obs/position"][()])
            assert demo["actions"].shape == (length, 2)
            assert demo["dones"][()].tolist() == [0] * (length - 1) + [1]
            assert np.linalg.norm(demo["next_obs/position"][-1] - demo["obs/goal"][-1]) < 0.1


def test_noise_is_executed_and_the_label_is_clean():
    recorder = Recorder(reach(noise=0.1, expert="make_expert"))
    wandered = []
    for number in range(40):
        demo = recorder.record(number)
        position, goal = demo.observations["position"], demo.observations["goal"]
        clean = np.clip(goal[:-1] - position[:-1], -0.2, 0.2)
        np.testing.assert_allclose(demo.actions, clean, atol=1e-6)
        moved = np.diff(position, axis=0)
        assert np.all(np.abs(moved) <= 0.2 + 1e-6)  # executed actions stay inside the action space
        inside = np.abs(clean) < 0.05  # clipping four standard deviations away leaves these alone
        wandered.append((moved - clean)[inside])
    noise = np.concatenate(wandered)
    assert noise.std() == pytest.approx(0.1 * 0.5, rel=0.15)  # noise times the task's action_noise_scale
    assert abs(noise.mean()) < 4 * 0.05 / np.sqrt(len(noise))


def test_the_data_does_not_depend_on_processes(reference, tmp_path):
    collect(reach(), 12, tmp_path / "two.hdf5", crew=Processes(2))
    assert_same(reference[0], tmp_path / "two.hdf5")


def test_seed_changes_the_data(reference, tmp_path):
    collect(reach(seed=1), 12, tmp_path / "other.hdf5")
    first, second = arrays(reference[0]), arrays(tmp_path / "other.hdf5")
    assert not np.array_equal(first["data/demo_0/states"][0], second["data/demo_0/states"][0])


def test_keep_failures_keeps_the_first_attempts(tmp_path):
    collected = collect(reach(), 12, tmp_path / "all.hdf5", keep_failures=True)
    assert collected.attempts == collected.demonstrations == 12
    assert 0 < collected.successes < 12
    with h5py.File(tmp_path / "all.hdf5") as file:
        kept = [bool(file[f"data/demo_{i}"].attrs["success"]) for i in range(12)]
    assert sum(kept) == collected.successes


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_started_again_gives_the_same_arrays(reference, tmp_path, workers):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_collect import reach\n"
        "from specpolicy.cluster import Processes\n"
        "from specpolicy.data.collect import collect\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    collect(reach(pause=0.01), 12, Path(sys.argv[2]), crew=Processes(int(sys.argv[3])))\n"
    )
    (tmp_path / "job.py").write_text(script)
    output = tmp_path / "reach.hdf5"
    command = [sys.executable, tmp_path / "job.py", HERE, output, str(workers)]
    process = subprocess.Popen(command)
    parts = tmp_path / "reach.hdf5.parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("attempt_*"))) < 3:
        assert process.poll() is None, "the collection ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    while any(Path(f"/proc/{child}").exists() for child in children):  # workers follow their parent
        assert time.monotonic() < deadline
        time.sleep(0.02)
    collect(reach(pause=0.01), 12, output)
    assert_same(reference[0], output)


def test_old_attempts_are_not_made_again(tmp_path):
    output = tmp_path / "reach.hdf5"

    class Killed(Exception):
        pass

    seen = []

    def interrupt(kept, success):
        seen.append(success)
        if len(seen) == 5:
            raise Killed

    with pytest.raises(Killed):
        collect(reach(), 12, output, on_attempt=interrupt)
    parts = sorted((tmp_path / "reach.hdf5.parts").glob("attempt_*"))
    stamps = [path.stat().st_mtime_ns for path in parts]
    replayed = []

    def check(kept, success):
        replayed.append(success)
        if len(replayed) == 5:
            assert [path.stat().st_mtime_ns for path in parts] == stamps

    collect(reach(), 12, output, on_attempt=check)
    assert replayed[:5] == seen


def test_a_gap_left_by_a_kill_is_filled(reference, tmp_path):
    """Of two processes the slower one may be killed with its attempt: the hole is made good, in order."""
    output = tmp_path / "reach.hdf5"
    with pytest.raises(KeyError):
        collect(reach(), 12, output, on_attempt=_after(6))
    (tmp_path / "reach.hdf5.parts" / "attempt_000001.hdf5").unlink()
    collect(reach(), 12, output)
    assert_same(reference[0], output)


def _after(count):
    left = list(range(count))

    def stop(kept, success):
        left.pop()
        if not left:
            raise KeyError("stop here")

    return stop


def test_another_setting_is_refused(reference, tmp_path):
    path = reference[0]
    before = path.read_bytes()
    assert collect(reach(), 12, path) is None
    for recording, episodes, message in (
        (reach(noise=0.2), 12, "noise=0.1, not 0.2"),
        (reach(seed=3), 12, "seed=0, not 3"),
        (reach(), 13, "episodes=12, not 13"),
        (reach(pause=0.01), 12, "task.kwargs.pause=None, not 0.01"),
    ):
        with pytest.raises(SpecpolicyError, match=message):
            collect(recording, episodes, path)
    assert path.read_bytes() == before

    output = tmp_path / "half.hdf5"
    with pytest.raises(KeyError):
        collect(reach(), 12, output, on_attempt=_after(2))
    with pytest.raises(SpecpolicyError, match=r"parts was made with noise=0\.1, not 0\.2"):
        collect(reach(noise=0.2), 12, output)
    assert len(list((tmp_path / "half.hdf5.parts").glob("attempt_*"))) == 2


def test_a_foreign_file_is_not_overwritten(tmp_path):
    path = tmp_path / "notes.hdf5"
    path.write_text("not HDF5")
    with pytest.raises(SpecpolicyError, match="no demonstration file"):
        collect(reach(), 2, path)
    assert path.read_text() == "not HDF5"


def test_a_hopeless_expert_is_given_up(tmp_path):
    with pytest.raises(SpecpolicyError, match="failed 30 of 30 attempts"):
        collect(reach(expert="make_hopeless_expert", max_steps=2), 5, tmp_path / "never.hdf5")


@pytest.mark.parametrize("expert", ["reach_env:missing", "no_such_module:make"])
def test_a_wrong_expert_is_named_before_anything_is_written(tmp_path, expert):
    recording = Recording(reach().task, 0.1, 0, 60.0, expert)
    with pytest.raises(SpecpolicyError, match=f"expert={expert}"):
        collect(recording, 2, tmp_path / "never.hdf5")
    assert not list(tmp_path.iterdir())


def test_demonstration_seeds_avoid_those_of_evaluation():
    seeds = [demonstration_seeds(seed, number) for seed in range(20) for number in range(200)]
    assert all(2**30 <= reset < 2**31 for reset, _, _ in seeds)
    assert len({noise for _, _, noise in seeds}) == len(seeds)
    assert len({reset for reset, _, _ in seeds}) >= len(seeds) - 1
