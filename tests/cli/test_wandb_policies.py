"""Policies of Weights & Biases in every verb: what train and calibrate log is what evaluate and benchmark use."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import specpolicy
from specpolicy import Calibration, demo, load_policy
from specpolicy.cli import main
from specpolicy.evaluation.provenance import fingerprint

pytestmark = pytest.mark.usefixtures("own_places")

TASKS = Path(__file__).parents[1] / "evaluation"  # where drift_env.py, a task without a simulator, lies
LEROBOT = Path(__file__).parents[1] / "data" / "lerobot_state"
DRIFT = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "workers=0", "videos=0", "episodes=2"]
MEASURE = ["threads=1", "engine=eager"]
CALIBRATE = ["chains=24", "rounds=16", "training_steps=8", "steps=[]", "threads=1", "held_out=0", "student=false"]
CALIBRATE += ["engine=eager"]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def refused(capsys, *arguments):
    """The one line on stderr of a command that must exit with 2."""
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_evaluate_uses_an_artifact_and_names_it(drifting, server, tmp_path):
    output = tmp_path / "out"
    arguments = ["evaluate", *DRIFT, "policy=wandb:drift-unet", "samplers=[ddim-2]", "engine=eager"]
    # Its process takes the policy that this one has fetched.
    assert main([*arguments, f"output={output}", "workers=1", "logger=wandb"]) == 0
    assert server.downloads == ["drift-unet:v0"] and server.used == ["drift-unet:v0"]
    summary = json.loads((output / "summary.json").read_text())
    digest = server.versions["specpolicy", "drift-unet"][0].digest
    assert summary["policy"]["path"] == "wandb:team/specpolicy/drift-unet:v0"
    assert summary["policy"]["artifact"] == {"name": "team/specpolicy/drift-unet:v0", "digest": digest}
    assert summary["policy"]["fingerprint"] == fingerprint(drifting)
    assert "wandb:team/specpolicy/drift-unet:v0" in (output / "report.html").read_text()
    assert "policy: wandb:team/specpolicy/drift-unet:v0" in (output / "config.yaml").read_text()
    assert main([*arguments, f"output={tmp_path / 'again'}"]) == 0  # without a logger nothing is recorded
    assert server.downloads == ["drift-unet:v0"] and server.used == ["drift-unet:v0"]


def test_runs_say_what_they_measured_and_where(drifting, server, observations, tmp_path, monkeypatch):
    configs, begin = [], server.init
    monkeypatch.setattr("wandb.init", lambda **options: configs.append(options["config"]) or begin(**options))
    policy = ["policy=wandb:drift-unet", "logger=wandb", "samplers=[ddim-2]", "engine=eager"]
    assert main(["evaluate", *DRIFT, *policy, f"output={tmp_path / 'out'}"]) == 0
    bench = ["benchmark", *policy, f"observations={observations}", "count=2", "threads=1"]
    assert main([*bench, f"output={tmp_path / 'bench'}"]) == 0
    local = ["benchmark", *policy[1:], f"policy={tmp_path / 'policy'}", f"observations={observations}", "count=2"]
    assert main([*local, f"output={tmp_path / 'local'}"]) == 0
    for config, artifact in zip(configs, ("team/specpolicy/drift-unet:v0",) * 2 + (None,), strict=True):
        assert config["policy_artifact"] == artifact and config["policy_fingerprint"] == fingerprint(drifting)
        assert config["task"]["id"] == "drift_env:Drift-v0" and config["machine"]["cores"] >= 1
        assert "control_hz" in config
    assert configs[0]["control_hz"] == 10 and server.used == ["drift-unet:v0"] * 2
    summary = json.loads((tmp_path / "bench" / "summary.json").read_text())
    assert summary["policy"]["artifact"]["name"] == "team/specpolicy/drift-unet:v0"
    assert "artifact" not in json.loads((tmp_path / "local" / "summary.json").read_text())["policy"]


def test_benchmark_measures_on_the_observations_of_an_artifact(drifting, server, observations, tmp_path):
    files = {**contents(tmp_path / "policy"), "observations.safetensors": observations.read_bytes()}
    server.add("specpolicy", "drift-unet", files)
    arguments = ["benchmark", "policy=wandb:drift-unet", "samplers=[ddim-2]", "count=2", *MEASURE]
    assert main([*arguments, f"output={tmp_path / 'out'}"]) == 0
    assert "drift-unet:v1" in (tmp_path / "out" / "summary.json").read_text()


def test_python_and_the_demonstration_take_an_artifact(drifting, server, observations, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SAMPLERS", ("ddpm", "block"))
    files = {**contents(tmp_path / "policy"), "observations.safetensors": observations.read_bytes()}
    server.add("specpolicy", "drift-unet", files)
    options = {"output": tmp_path / "out", "quiet": True, "threads": 1, "engine": "eager"}
    found = specpolicy.benchmark("wandb:drift-unet", ["ddim-2"], 2, **options)
    assert found.summary["policy"]["artifact"]["name"] == "team/specpolicy/drift-unet:v1"
    lines: list[str] = []
    demo.run(Path("wandb:drift-unet"), "eager", 2, lines.append)
    assert lines[0].startswith("wandb:drift-unet, a chunk of 6 steps") and server.downloads == ["drift-unet:v1"]


def test_calibrate_logs_the_calibrated_policy_as_a_new_version(drifting, server, observations, tmp_path, capsys):
    before = {**contents(tmp_path / "policy")}
    arguments = ["calibrate", "policy=wandb:drift-unet", f"observations={observations}", *CALIBRATE]
    assert "versions of artifacts never change: give output=" in refused(capsys, *arguments)
    assert server.downloads == []
    output = tmp_path / "calibrated"
    assert main([*arguments, f"output={output}", "logger=wandb"]) == 0
    assert "logged as wandb:team/specpolicy/drift-unet:v1" in capsys.readouterr().out
    first, second = server.versions["specpolicy", "drift-unet"]
    assert first.files == before and {name: second.files[name] for name in before} == before
    assert {"speculation.safetensors", "speculation.json"} <= second.files.keys()
    assert server.aliases["specpolicy", "drift-unet", "calibrated"] is second and server.used == ["drift-unet:v0"]
    assert second.metadata["made_from"] == "team/specpolicy/drift-unet:v0"
    assert second.metadata["6_steps/calls"] == Calibration.load(output).plans["cpu"][6].calls
    policy = load_policy("wandb:drift-unet:calibrated")
    assert policy.best_sampler == "recycled" and policy.fingerprint == drifting.fingerprint
    # What was learnt is kept where only the machine is another one; the versions stay what they were.
    again = ["policy=wandb:drift-unet", f"output={tmp_path / 'again'}", "learn=false", f"observations={observations}"]
    assert main(["calibrate", *again, "steps=[3]", *MEASURE]) == 0
    assert Calibration.load(tmp_path / "again").plans["cpu"].keys() == {3, 6}
    assert contents(tmp_path / "again").keys() == {"speculation.safetensors", "speculation.json"}


def test_calibrate_logs_a_policy_of_another_project_as_a_checkpoint_of_ours(server, tmp_path):
    theirs = shutil.copytree(LEROBOT, tmp_path / "theirs")
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, "num_inference_steps": 6}))
    policy = load_policy(theirs)
    shapes = {key: (30, *policy.frame_shape(key)) for key in policy.observation_keys}
    source = np.random.default_rng(0)
    save_file({key: source.uniform(size=shape).astype(np.float32) for key, shape in shapes.items()}, tmp_path / "seen")
    arguments = ["calibrate", f"policy={theirs}", f"observations={tmp_path / 'seen'}", f"output={tmp_path / 'out'}"]
    assert main([*arguments, *CALIBRATE, "logger=wandb"]) == 0
    ((logged,),) = server.versions.values()
    assert "speculation.json" in logged.files
    found = load_policy(f"wandb:{logged.name}")
    assert found.fingerprint == policy.fingerprint and found.best_sampler == "recycled"


def test_calibrate_leaves_the_run_of_a_training_alone(drifting, server, observations, tmp_path):
    policy = tmp_path / "policy"
    (policy / "wandb_run_id.txt").write_text("training\n")
    arguments = ["calibrate", f"policy={policy}", f"observations={observations}", *CALIBRATE, "logger=wandb"]
    assert main(arguments) == 0
    assert (policy / "wandb_run_id.txt").read_text() == "training\n"
    assert (policy / "calibrate_log" / "wandb_run_id.txt").exists()
    (_, logged) = server.versions["specpolicy", "drift-unet"]
    assert logged.metadata["made_from"] is None and "speculation.json" in logged.files


def test_convert_makes_a_checkpoint_of_an_artifact(drifting, server, tmp_path):
    assert main(["convert", "path=wandb:drift-unet", f"out={tmp_path / 'mine'}"]) == 0
    assert load_policy(tmp_path / "mine").fingerprint == drifting.fingerprint


@pytest.mark.parametrize(
    "verb",
    (
        ["evaluate", *DRIFT],
        ["rollout", *DRIFT[:3]],
        ["control", *DRIFT[:3]],
        ["benchmark"],
        ["calibrate", "output=here"],
        ["train_drafter", "output=here"],
        ["serve"],
        ["convert", "out=here"],
    ),
    ids=lambda verb: verb[0],
)
def test_every_verb_takes_an_artifact_and_refuses_an_unknown_one(server, verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TASKS))
    key = "path" if verb[0] == "convert" else "policy"
    line = refused(capsys, verb[0], f"{key}=wandb:other/project/name:v3", *verb[1:])
    assert "wandb:other/project/name:v3: Weights & Biases has no such artifact" in line
    assert server.asked == ["other/project/name:v3"] and not (tmp_path / "here").exists()
