"""Recorded episodes are the same when they are played again; a change of the physics is located."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from h5py import File

from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.evaluation.tapes import read_tape, tape_path

HERE = Path(__file__).parent
REACH = ["task=gym", "task.name=reach", "task.id=reach_env:Reach-v0", "expert=reach_env:make_clumsy_expert"]


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Demonstrations of an expert that fails now and then, whose attempts are therefore not numbered in a row."""
    directory = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE.parent / "data"))
        common = ["collect", *REACH, "noise=0.1", "workers=0", "episodes=4"]
        assert main([*common, f"output={directory / 'reach.hdf5'}"]) == 0
        assert main([*common, "format=lerobot", f"output={directory / 'lerobot'}"]) == 0
        yield directory


def replay(path, output, *arguments):
    """The rows of replay.csv."""
    assert main(["replay", f"path={path}", f"output={output}", *arguments]) == 0
    with (output / "replay.csv").open() as file:
        return list(csv.DictReader(file))


def test_demonstrations_are_the_same_to_the_bit(collected, tmp_path, capsys):
    rows = replay(collected / "reach.hdf5", tmp_path / "out")
    assert [row["episode"] for row in rows] == [f"demo_{number}" for number in range(4)]
    assert {row["identical"] for row in rows} == {"1"} and len({row["seed"] for row in rows}) == 4
    assert "4 of 4 episodes are the same within 0.0001, 4 to the bit" in capsys.readouterr().out
    others = replay(collected / "lerobot", tmp_path / "lerobot")
    assert {row["identical"] for row in others} == {"1"}
    assert {row["seed"] for row in others} == {row["seed"] for row in rows}
    assert len(replay(collected / "reach.hdf5", tmp_path / "out", "episodes=2")) == 2


def test_seeds_of_older_files_are_found(collected, tmp_path):
    expected = replay(collected / "reach.hdf5", tmp_path / "new")
    older = Path(shutil.copy(collected / "reach.hdf5", tmp_path / "older.hdf5"))
    with File(older, "a") as file:
        for demo in file["data"].values():
            del demo.attrs["reset_seed"]
        file["data/demo_2/obs/goal"][0] += 0.5
    rows = replay(older, tmp_path / "older")
    assert [row["seed"] for row in rows] == [*(row["seed"] for row in expected[:2]), "", expected[3]["seed"]]
    assert [row["same"] for row in rows] == ["1", "1", "0", "1"] and rows[2]["departs_at"] == "0"


def test_other_physics_are_located(collected, tmp_path, monkeypatch, capsys):
    import reach_env

    step = reach_env.Reach.step

    def slower(env, action):
        return step(env, action * (0.99 if env.steps == 2 else 1))

    monkeypatch.setattr(reach_env.Reach, "step", slower)
    rows = replay(collected / "reach.hdf5", tmp_path / "out")
    assert {(row["departs_at"], row["key"]) for row in rows} == {("3", "position")}
    assert all(0 < float(row["size"]) < 0.0021 for row in rows)
    printed = capsys.readouterr().out
    assert "0 of 4 episodes" in printed and "demo_0: departs at step 3, position by" in printed
    assert {row["same"] for row in replay(collected / "reach.hdf5", tmp_path / "out", "tolerance=0.1")} == {"1"}


def test_episodes_of_an_evaluation(drift_policy, drift_task, tmp_path, monkeypatch, capsys):
    import drift_env

    output = tmp_path / "evaluation"
    task = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0"]
    play = [f"policy={drift_policy}", "samplers=[ddim-4]", "episodes=2", "workers=0", "videos=0", "engine=eager"]
    monkeypatch.setattr("specpolicy.evaluation.plots.write_plots", lambda *arguments: {})
    assert main(["evaluate", *task, *play, "record_actions=true", f"output={output}"]) == 0
    with (output / "episodes.csv").open() as file:
        lengths = {int(row["seed"]): int(row["length"]) for row in csv.DictReader(file)}
    for seed, length in lengths.items():
        tape = read_tape(tape_path(output, "ddim-4", seed))
        assert tape.seed == seed and tape.actions.shape == (length, 2) and tape.actions.dtype == np.float32
        assert tape.observations["position"].shape == (length + 1, 2)
    rows = replay(output, tmp_path / "out")
    assert [row["episode"] for row in rows] == ["ddim-4-100000", "ddim-4-100001"]
    assert {row["identical"] for row in rows} == {"1"}
    monkeypatch.setattr(drift_env.Drift, "_info", lambda env: {"is_success": env.steps > 1})
    monkeypatch.setattr(drift_env.Drift, "step", ends_early(drift_env.Drift.step))
    assert {row["key"] for row in replay(output, tmp_path / "out")} == {"the number of steps"}
    capsys.readouterr()
    (output / "actions" / "ddim-4-100000.npz").write_bytes(b"PK")
    assert main(["replay", f"path={output}", f"output={tmp_path / 'out'}"]) == 2
    assert "holds no recorded episode" in capsys.readouterr().err


def ends_early(step):
    """The same step in an environment that ends after two."""

    def played(env, action):
        observation, reward, _, truncated, info = step(env, action)
        return observation, reward, env.steps > 1, truncated, info

    return played


def test_other_versions_are_named(collected, tmp_path, capsys):
    for kind in ("reach.hdf5", "lerobot"):
        replay(collected / kind, tmp_path / "out")
        assert "recorded with" not in capsys.readouterr().out
    older = Path(shutil.copy(collected / "reach.hdf5", tmp_path / "older.hdf5"))
    with File(older, "a") as file:
        known = json.loads(file["data"].attrs["versions"])
        file["data"].attrs["versions"] = json.dumps({**known, "numpy": "1.0", "unheard_of": "2"})
    replay(older, tmp_path / "older")
    assert f"recorded with numpy 1.0, here {known['numpy']}\n" in capsys.readouterr().out


def test_images_alone_cannot_be_compared():
    from specpolicy.evaluation.replaying import compare
    from specpolicy.evaluation.tapes import Tape

    with pytest.raises(SpecpolicyError, match="images alone"):
        compare("demo_0", Tape(0, np.zeros((1, 2)), {}), Tape(0, np.zeros((1, 2)), {}), 0.0)


def test_what_cannot_be_played_again(collected, write_demonstrations, tmp_path, capsys):
    foreign = write_demonstrations(tmp_path / "foreign.hdf5")
    for path, message in (
        (tmp_path / "nowhere", "no such file"),
        (foreign, "is not of specpolicy collect"),
        (tmp_path, "holds no data set"),
    ):
        assert main(["replay", f"path={path}", f"output={tmp_path / 'out'}"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main(["replay", f"path={collected / 'reach.hdf5'}", "tolerance=-1"]) == 2
    assert "tolerance=-1: expected 0 or more" in capsys.readouterr().err


def numbered(text):
    return lambda data: data["demo_0"].attrs.__setitem__("reset_seed", text)


def told(name, value):
    return lambda data: data.attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "words"),
    (
        (told("collection", "{"), "attribute collection is damaged"),
        (told("collection", '{"seed": "abc"}'), "the collection is damaged: its seed is 'abc'"),
        (told("task", "[1, 2]"), "neither a seed nor a stored state"),
        (told("task", '{"id": "nowhere_at_all:No-v0"}'), "task nowhere_at_all:No-v0: No module named 'nowhere_at_all'"),
        (numbered("x"), "data/demo_0 is damaged: its seed is 'x'"),
        (numbered(-5), "data/demo_0 is damaged: its seed is -5"),
        (lambda data: data["demo_1/obs"].pop("goal"), "data/demo_1/obs has no key 'goal'"),
    ),
)
def test_a_damaged_recording_is_refused_in_one_line(collected, tmp_path, capsys, change, words):
    damaged = Path(shutil.copy(collected / "reach.hdf5", tmp_path / "damaged.hdf5"))
    with File(damaged, "a") as file:
        change(file["data"])
    capsys.readouterr()
    assert main(["replay", f"path={damaged}", f"output={tmp_path / 'out'}"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("specpolicy")]
    assert len(lines) == 1 and words in lines[0]


def test_a_tape_of_another_task_is_refused(drift_task, tmp_path):
    from specpolicy.evaluation.tapes import Tape, play_again
    from specpolicy.tasks import make_task_env

    with pytest.raises(SpecpolicyError, match=r"has shape \(3,\), the task's \(2,\)"):
        play_again(make_task_env(drift_task), Tape(0, np.zeros((4, 3)), {}))
