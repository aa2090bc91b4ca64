"""`specpolicy calibrate` and `specpolicy train_drafter`, as a user types them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from specpolicy import Calibration, load_policy, make_sampler
from specpolicy.cli import main
from specpolicy.engines.openvino import OpenVINOEngine
from specpolicy.evaluation.recording import EpisodeRecorder, Recording
from specpolicy.policy import DiffusionPolicy

TASKS = Path(__file__).parents[1] / "evaluation"  # where drift_env.py, a task without a simulator, lies
LITTLE = ["engine=eager", "chains=24", "invented=24", "rounds=16", "training_steps=20", "steps=[]", "threads=1"]
LITTLE += ["held_out=0"]
FEW = ["chains=24", "training_steps=12", "down_dims=[8,16]", "threads=1"]


@pytest.fixture
def checkpoint(policy_config, tmp_path):
    """A small untrained policy of 6 steps: a plan for a chain takes time by its length."""
    torch.manual_seed(0)
    policy_config["chain"] = {"train_steps": 6, "steps": 6}
    policy_config.pop("task")
    return DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy")


def predict(directory, sampler):
    """A sample of the policy that lies there."""
    observation = {"position": torch.zeros(3, 2, 2), "object": torch.ones(3, 2, 3)}
    return load_policy(directory).predict(observation, sampler, torch.Generator().manual_seed(1))


def refused(capsys, *arguments):
    """The one line on stderr of a command that must exit with 2."""
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


# -- calibrate --------------------------------------------------------------------------------------------------------


def test_calibrate_writes_what_the_sampler_then_uses(checkpoint, observations, capsys):
    assert main(["calibrate", f"policy={checkpoint}", f"observations={observations}", *LITTLE, "steps=[3]"]) == 0
    shown = capsys.readouterr().out
    assert "one call: 1 rows" in shown and "6 steps:" in shown and "3 steps:" in shown and "speculation" in shown
    calibration = Calibration.load(checkpoint)
    assert calibration.student is not None and sorted(calibration.plans["cpu"]) == [3, 6]
    report = json.loads((checkpoint / "speculation.json").read_text())["report"]
    assert report["config"]["chains"] == 24
    assert report["cpu"]["threads"] == 1 and report["cpu"]["hardware"]["cores"] >= 1
    assert (checkpoint / "calibrate.yaml").exists() and not (checkpoint / "observations.safetensors").exists()
    policy = load_policy(checkpoint)
    assert policy.best_sampler == "recycled" == policy.bound().sampler.name
    assert policy.bound().setting.calibration is policy.calibration is not None
    assert predict(checkpoint, "recycled").actions.isfinite().all()
    assert predict(checkpoint, make_sampler("recycled", steps=3)).stats.calls.max() <= 3


def test_calibrate_says_what_is_wrong_before_it_works(checkpoint, observations, tmp_path, capsys):
    output = tmp_path / "elsewhere"
    arguments = [f"policy={checkpoint}", f"observations={observations}", f"output={output}", *LITTLE]
    assert "unknown precision 'int4': use one of" in refused(capsys, "calibrate", *arguments, "precision=int4")
    assert "is missing" in refused(capsys, "calibrate", *arguments, "learn=false")
    assert not output.exists()


def test_calibrate_without_a_student_and_into_another_directory(checkpoint, observations, tmp_path, capsys):
    output = tmp_path / "elsewhere"
    arguments = [f"policy={checkpoint}", f"observations={observations}", f"output={output}", "student=false"]
    assert main(["calibrate", *arguments, *LITTLE]) == 0
    assert Calibration.load(output).student is None
    assert load_policy(checkpoint).calibration is None and not (checkpoint / "speculation.json").exists()


def test_calibrate_plays_the_policys_own_task(policy_config, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(TASKS))
    policy_config["chain"] = {"train_steps": 4, "steps": 4}
    policy_config["task"] = {"name": "drift", "id": "drift_env:Drift-v0", "observation_keys": None}
    checkpoint = DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy")
    played = ["count=40", "episodes=2", "workers=0", "max_seconds=2", "student=false", *LITTLE, "held_out=7"]
    assert main(["calibrate", f"policy={checkpoint}", *played]) == 0
    held_out = load_file(checkpoint / "observations.safetensors")
    assert {key: value.shape for key, value in held_out.items()} == {"position": (7, 2, 2), "object": (7, 2, 3)}
    assert load_policy(checkpoint).calibration is not None
    (checkpoint / "calibrate.yaml").unlink()  # as in the checkpoints that come with the package
    assert main(["calibrate", f"policy={checkpoint}", *played]) == 0


def test_the_engine_that_is_calibrated_also_plays(policy_config, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.syspath_prepend(str(TASKS))
    task = {"name": "drift", "id": "drift_env:Drift-v0", "observation_keys": None}
    checkpoint = DiffusionPolicy.from_config({**policy_config, "task": task}).save(tmp_path / "policy")
    for engine, kind in (("eager", type(None)), ("openvino", OpenVINOEngine)):
        recorder = EpisodeRecorder(Recording(str(checkpoint), task, max_seconds=1.0, engine=engine))
        seed, histories = recorder(5)
        assert seed == 5 and len(histories["position"]) > 1
        assert isinstance(recorder.planner.policy.engine, kind)
        recorder.close()


@pytest.mark.parametrize("verb", ("calibrate", "train_drafter"))
def test_what_cannot_be_done_is_one_line(verb, checkpoint, observations, tmp_path, capsys, monkeypatch):
    """Also before engines are measured, which takes seconds."""
    monkeypatch.setattr("specpolicy.cli.engines.on_engine", lambda policy, name: pytest.fail("an engine was made"))
    policy = (f"policy={checkpoint}", *(["steps=[]"] if verb == "calibrate" else []))
    assert "nowhere" in refused(capsys, verb, f"policy={tmp_path / 'nowhere'}")
    assert "names no task" in refused(capsys, verb, *policy)
    assert "no recorded observations" in refused(capsys, verb, *policy, "observations=nothing.safetensors")
    save_file({"position": np.zeros((30, 2, 2), np.float32)}, tmp_path / "other.safetensors")
    assert "no 'object'" in refused(capsys, verb, *policy, f"observations={tmp_path / 'other.safetensors'}")
    assert "chains" in refused(capsys, verb, *policy, "chain=3")
    written = {path.name for path in checkpoint.iterdir()}
    assert written == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("verb", ("calibrate", "train_drafter"))
@pytest.mark.parametrize(
    "without", ({"mip": {"time": 0.9}}, {"chain": {"train_steps": 12, "steps": 4, "ddim": {"eta": 0.0}}})
)
def test_a_policy_without_noise_is_refused_before_it_plays(verb, without, policy_config, tmp_path, capsys):
    place = DiffusionPolicy.from_config({**policy_config, "chain": None, **without}).save(tmp_path / "policy")
    assert "adds no noise" in refused(capsys, verb, f"policy={place}")
    line = refused(capsys, "benchmark", f"policy={place}", "samplers=[ddpm]", f"output={tmp_path / 'out'}")
    assert "no recorded observations" in line and "give task=" in line and "calibrate" not in line
    assert {path.name for path in place.iterdir()} == {"config.json", "model.safetensors"}


def test_chains_that_are_longer_than_the_training_are_refused_before_they_are_played(checkpoint, tmp_path, capsys):
    line = refused(capsys, "calibrate", f"policy={checkpoint}", "steps=[16]", f"output={tmp_path / 'out'}")
    assert "between 1 and train_steps=6" in line and not (tmp_path / "out").exists()


def test_too_few_observations_to_calibrate_on(checkpoint, tmp_path, capsys):
    save_file(
        {key: np.zeros((5, 2, size), np.float32) for key, size in (("position", 2), ("object", 3))}, tmp_path / "few"
    )
    line = refused(capsys, "calibrate", f"policy={checkpoint}", f"observations={tmp_path / 'few'}", *LITTLE)
    assert "5 conditions are too few" in line


# -- train_drafter ----------------------------------------------------------------------------------------------------


def test_train_drafter_trains_both_and_the_policy_uses_them(checkpoint, observations, capsys):
    assert main(["train_drafter", f"policy={checkpoint}", f"observations={observations}", *FEW]) == 0
    assert "drafters.safetensors" in capsys.readouterr().out
    models = load_policy(checkpoint).draft_models
    assert set(models.models()) == {"independent", "corrected"}
    assert models.report["config"]["training_steps"] == 12 and (checkpoint / "train_drafter.yaml").exists()
    for drafter in models.models():
        out = predict(checkpoint, make_sampler("reflection", drafter=drafter))
        assert out.actions.isfinite().all() and out.stats.rejections is not None


@pytest.mark.parametrize("kind", ("independent", "corrected"))
def test_train_drafter_trains_one_kind_alone(kind, checkpoint, observations, tmp_path, capsys):
    arguments = [
        f"policy={checkpoint}",
        f"observations={observations}",
        f"kinds=[{kind}]",
        f"output={tmp_path / 'out'}",
    ]
    assert main(["train_drafter", *arguments, *FEW]) == 0
    stored = json.loads((tmp_path / "out" / "drafters.json").read_text())
    assert set(stored["options"]) == {kind}
    assert load_policy(checkpoint).draft_models.models() == {}


@pytest.mark.parametrize("kinds", ("[medusa]", "[]"))
def test_train_drafter_refuses_unknown_kinds(kinds, checkpoint, capsys):
    assert "independent, corrected" in refused(capsys, "train_drafter", f"policy={checkpoint}", f"kinds={kinds}")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("[7]", "down_dims [7] must be multiples"),
        ("[8,8,8,8,8]", "horizon=8 must be a multiple of 16"),
        ("[]", "0 lev"),
    ],
)
def test_train_drafter_refuses_sizes_before_it_plays(sizes, words, policy_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("specpolicy.cli.observations.conditions", lambda *_: pytest.fail("it played first"))
    place = DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy")
    assert words in refused(capsys, "train_drafter", f"policy={place}", f"down_dims={sizes}")


def test_train_drafter_refuses_chains_that_are_too_short_for_drafts(policy_config, tmp_path, capsys):
    config = {**policy_config, "chain": {"train_steps": 12, "steps": 2}}
    place = DiffusionPolicy.from_config(config).save(tmp_path / "policy")
    line = refused(capsys, "train_drafter", f"policy={place}")
    assert "too short for the draft model 'corrected', which learns from chains of 3 steps or more" in line
