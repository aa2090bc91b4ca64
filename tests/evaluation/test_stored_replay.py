"""Demonstrations of robomimic and robosuite begin from a stored state; played again, they are the same to the bit."""

import copy
import csv
import json
import shutil

import h5py
import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.data.stored_states import stored_states

STEPS = 10
BESIDE = {"control_freq": 20, "has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two demonstrations, recorded as robosuite's own script does it, described as before robosuite 1.5."""
    pytest.importorskip("robosuite")
    from robosuite.controllers.composite.composite_controller_factory import refactor_composite_controller_config

    from specpolicy_envs.robosuite_task import CONTROLLER, import_robosuite

    arm = {key: value for key, value in CONTROLLER["body_parts"]["right"].items() if key != "gripper"}
    whole = refactor_composite_controller_config(copy.deepcopy(arm), "Panda", ["right"])
    env = import_robosuite().make("Lift", robots="Panda", controller_configs=whole, ignore_done=True, **BESIDE)
    source = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("stored") / "demo.hdf5"
    with h5py.File(path, "w") as file:
        for number in (0, 10):
            env.reset()
            scene, state = env.sim.model.get_xml(), env.sim.get_state().flatten()
            env.reset_from_xml_string(env.edit_model_xml(scene))
            env.sim.reset()
            env.sim.set_state_from_flattened(state)
            env.sim.forward()
            actions, states = source.uniform(-1, 1, (STEPS, 7)), []
            for action in actions:
                states.append(env.sim.get_state().flatten())
                env.step(action)
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["model_file"], demo["states"], demo["actions"] = scene, np.stack(states), actions
        kwargs = {"robots": "Panda", "controller_configs": arm, **BESIDE}
        args = {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": kwargs}
        file["data"].attrs["env_args"] = json.dumps(args)
    env.close()
    return path


def replay(path, output):
    """The rows of replay.csv."""
    assert main(["replay", f"path={path}", f"output={output}"]) == 0
    with (output / "replay.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_robosuite_recorded_is_the_same_until_something_changes(recorded, tmp_path, capsys):
    changed = tmp_path / "changed.hdf5"
    shutil.copy(recorded, changed)
    with h5py.File(changed, "a") as file:
        file["data/demo_10/actions"][5, 0] += 0.5
        info = json.loads(file["data"].attrs["env_args"])
        del file["data"].attrs["env_args"]  # as robosuite describes it
        file["data"].attrs["env"] = info["env_name"]
        file["data"].attrs["env_info"] = json.dumps({"env_name": info["env_name"], **info["env_kwargs"]})
    rows = replay(changed, tmp_path / "out")
    assert [(row["episode"], row["identical"], row["departs_at"]) for row in rows] == [
        ("demo_0", "1", ""),
        ("demo_10", "0", "6"),
    ]
    assert rows[1]["key"].startswith("robot0_joint") and {row["seed"] for row in rows} == {""}
    assert "recorded with" not in capsys.readouterr().out


def test_what_was_recorded_elsewhere_is_said(recorded):
    found = stored_states(recorded)
    assert (found.name, found.names, found.versions) == ("Lift", ("demo_0", "demo_10"), {"robosuite": "1.4.1"})


def without(name):
    def change(file):
        demo = file["data/demo_10"]
        del (demo.attrs if name in demo.attrs else demo)[name]

    return change


def described(text):
    return lambda file: file["data"].attrs.modify("env_args", text)


def shortened(file):
    rows = file["data/demo_10/states"][:-1]
    del file["data/demo_10/states"]
    file["data/demo_10/states"] = rows


@pytest.mark.parametrize(
    ("change", "words"),
    (
        (without("states"), "data/demo_10 lacks 'states'"),
        (without("actions"), "data/demo_10 lacks 'actions'"),
        (without("model_file"), "data/demo_10 lacks 'model_file'"),
        (shortened, f"data/demo_10 has {STEPS - 1} states and {STEPS} actions"),
    ),
)
def test_a_damaged_demonstration_is_refused(recorded, tmp_path, change, words):
    damaged = tmp_path / "damaged.hdf5"
    shutil.copy(recorded, damaged)
    with h5py.File(damaged, "a") as file:
        change(file)
    found = stored_states(damaged)
    assert len(list(found.read(found.names[:1]))) == 1
    with pytest.raises(SpecpolicyError) as caught:
        list(found.read(found.names))
    assert words in str(caught.value)


def test_states_of_another_scene_are_refused_before_they_are_played(recorded, tmp_path, capsys):
    other = tmp_path / "other.hdf5"
    shutil.copy(recorded, other)
    with h5py.File(other, "a") as file:
        for demo in file["data"].values():
            rows = demo["states"][:]
            del demo["states"]
            demo["states"] = rows[:, :-1]
    size = rows.shape[1]
    assert main(["replay", f"path={other}", f"output={tmp_path / 'out'}"]) == 2
    assert f"has states of {size - 1} numbers, its scene has {size}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    (
        ("{", "env_args is no description"),
        ("[1]", "env_args is no description"),
        ('{"type": 1}', "does not say which environment"),
        ('{"type": 2, "env_name": "Hopper-v4"}', "neither a seed nor a stored state"),
        ('{"type": 1, "env_name": "Levitate"}', "robosuite cannot make its Levitate"),
    ),
)
def test_an_environment_that_is_not_robosuites_is_refused(recorded, tmp_path, capsys, text, words):
    other = tmp_path / "other.hdf5"
    shutil.copy(recorded, other)
    with h5py.File(other, "a") as file:
        described(text)(file)
    assert main(["replay", f"path={other}", f"output={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert words in error[-1] and "Traceback" not in "".join(error)
    assert not (tmp_path / "out" / "replay.csv").exists()
