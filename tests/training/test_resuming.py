"""Runs that ended go on to the bit, and only the same run does: what a training finds in its output."""

import copy
import os
import shutil

import pytest
import torch
from toy_runs import OPTIONS, Curve, Killed, KilledAt, fresh
from toy_windows import windows

from specpolicy import SpecpolicyError, load_policy
from specpolicy.data.dataset import Sequences
from specpolicy.training import TrainingOptions, train

SAVING = OPTIONS | {"steps": 6, "save_every": 2}
SHORT = OPTIONS | {"steps": 2, "save_every": 1}


@pytest.fixture(scope="module")
def whole_run(small_policy_config, tmp_path_factory):
    """The weights of a run of `SAVING` that nothing ended."""
    place = tmp_path_factory.mktemp("whole")
    policy = train(fresh(small_policy_config), windows(), None, TrainingOptions(**SAVING), place, Curve())
    return policy.denoiser.state_dict()


@pytest.mark.parametrize("name", ("training.pt", "model.safetensors", "config.json"))
@pytest.mark.parametrize("save", (1, 3))
def test_a_run_that_ends_while_it_saves_goes_on(policy_config, whole_run, tmp_path, monkeypatch, name, save):
    """A kill or a full disk at any of the files of any save, the last one too."""
    options, data = TrainingOptions(**SAVING), (windows(), None)
    replace, seen = os.replace, []

    def dying(source, target):
        seen.append(os.path.basename(target))
        if seen.count(name) == save:
            raise Killed
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            train(fresh(policy_config), *data, options, tmp_path / "killed", Curve())
    # A checkpoint is never there without what its training needs to go on.
    assert (tmp_path / "killed" / "training.pt").exists() or not (tmp_path / "killed" / "config.json").exists()
    train(fresh(policy_config), *data, options, tmp_path / "killed", Curve())
    found = load_policy(tmp_path / "killed").denoiser.state_dict()
    assert all(torch.equal(found[key], value) for key, value in whole_run.items())


@pytest.mark.parametrize("save", (10, 8))  # 8 is no multiple of the steps from one row of the log to the next
def test_a_killed_run_resumes_to_the_same_curve_and_weights(policy_config, tmp_path, save):
    options, whole, first, second = TrainingOptions(**{**OPTIONS, "save_every": save}), Curve(), KilledAt(25), Curve()
    data = windows(), windows(16, 1)
    expected = train(fresh(policy_config), *data, options, tmp_path / "whole", whole)
    with pytest.raises(Killed):
        train(fresh(policy_config), *data, options, tmp_path / "killed", first)
    resumed = train(fresh(policy_config), *data, options, tmp_path / "killed", second)
    saved = 24 // save * save
    assert list(second.rows) == [step for step in whole.rows if step > saved]  # it went on from its last save
    assert second.rows == {step: row for step, row in whole.rows.items() if step > saved}
    for name, value in expected.denoiser.state_dict().items():
        assert torch.equal(resumed.denoiser.state_dict()[name], value), name
    again = Curve()
    train(fresh(policy_config), *data, options, tmp_path / "whole", again)
    assert not again.rows  # a finished run has nothing left to do


def scaled(found, factor):
    return Sequences(found.observation, found.action * factor)


def with_observation(found, **changes):
    return Sequences({**found.observation, **changes}, found.action)


OTHERS = {  # what is changed after a kill, of (options, policy's configuration, training and validation windows); words
    "learning rate": (lambda o, p, t, v: ({**o, "learning_rate": 1e-4}, p, t, v), "another learning_rate"),
    "schedule": (lambda o, p, t, v: ({**o, "steps": 50}, p, t, v), "another steps"),
    "seed": (lambda o, p, t, v: ({**o, "seed": 1}, p, t, v), "another seed"),
    "larger actions": (lambda o, p, t, v: (o, p, scaled(t, 100), v), "other data"),
    "one value": (
        lambda o, p, t, v: (o, p, with_observation(t, object=t.observation["object"] + 1e-3), v),
        "other data",
    ),
    "more windows": (lambda o, p, t, v: (o, p, windows(65), v), r"other data \(64 windows for training, not 65\)"),
    "validation windows": (lambda o, p, t, v: (o, p, t, windows(17, 1)), "16 windows for validation, not 17"),
    "no validation": (lambda o, p, t, v: (o, p, t, None), "validation"),
    "prediction": (
        lambda o, p, t, v: (o, {**p, "chain": {**p["chain"], "prediction": "sample"}}, t, v),
        r"another chain \(prediction=\w+, not sample\)",
    ),
    "beta schedule": (lambda o, p, t, v: (o, {**p, "chain": {**p["chain"], "beta_schedule": "linear"}}, t, v), "chain"),
    "normaliser": (
        lambda o, p, t, v: (
            o,
            {**p, "normaliser": {**p["normaliser"], "action": {"scale": [5.0, 2.5], "offset": [0.0, 0.0]}}},
            t,
            v,
        ),
        "another normaliser",
    ),
    "order of the observation": (
        lambda o, p, t, v: (o, {**p, "observation": dict(reversed(p["observation"].items()))}, t, v),
        "another observation_keys",
    ),
    "steps executed": (lambda o, p, t, v: (o, {**p, "n_action_steps": 3}, t, v), "another n_action_steps"),
    "task": (lambda o, p, t, v: (o, {**p, "task": {"name": "other"}}, t, v), "another task"),
}


@pytest.fixture(scope="module")
def short_run(small_policy_config, tmp_path_factory):
    """The output of a run of `SHORT`, to be copied."""
    place = tmp_path_factory.mktemp("short")
    train(fresh(small_policy_config), windows(), windows(16, 1), TrainingOptions(**SHORT), place, Curve())
    return place


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_not_continued_under_the_old_weights(policy_config, short_run, tmp_path, name):
    given = SHORT, policy_config, windows(), windows(16, 1)
    shutil.copytree(short_run, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "training.pt").read_bytes(), (tmp_path / "model.safetensors").read_bytes()
    change, words = OTHERS[name]
    other, config, training, validation = change(*copy.deepcopy(given))
    with pytest.raises(SpecpolicyError, match=words) as caught:
        train(fresh(config), training, validation, TrainingOptions(**other), tmp_path, Curve())
    assert "\n" not in str(caught.value) and "overwrite=true" in str(caught.value)
    assert ((tmp_path / "training.pt").read_bytes(), (tmp_path / "model.safetensors").read_bytes()) == before
    again = Curve()  # and the same run, from another command, goes on: there is nothing left to do
    train(fresh({**policy_config, "command": "other"}), *given[2:], TrainingOptions(**SHORT), tmp_path, again)
    assert not again.rows


def test_a_state_that_does_not_say_whose_it_is_is_not_continued(policy_config, tmp_path):
    torch.save({"step": 2, "options": OPTIONS}, tmp_path / "training.pt")
    with pytest.raises(SpecpolicyError, match="does not say which data"):
        train(fresh(policy_config), windows(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())
    (tmp_path / "training.pt").write_bytes(b"notes")
    with pytest.raises(SpecpolicyError, match="cannot be read"):
        train(fresh(policy_config), windows(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())


def test_another_network_is_not_continued(policy_config, tmp_path):
    train(fresh(policy_config), windows(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())
    policy_config["network"]["down_dims"] = [16, 48]
    with pytest.raises(SpecpolicyError, match="another network"):
        train(fresh(policy_config), windows(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())
