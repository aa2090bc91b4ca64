"""Policies from verb to verb by way of Weights & Biases: what train logs is what evaluate and benchmark use."""

import csv
import json
import os
from pathlib import Path

import fake_wandb
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from wandb_run import read_run

import specpolicy
from specpolicy import Calibration, demo, load_policy
from specpolicy.cli import main
from specpolicy.data.dataset import read_data
from specpolicy.evaluation.provenance import fingerprint
from specpolicy.logging import Score, make_logger
from specpolicy.policy import DiffusionPolicy

TASKS = Path(__file__).parents[1] / "evaluation"  # where drift_env.py, a task without a simulator, lies
LEROBOT = Path(__file__).parents[1] / "data" / "lerobot_state"
TRAIN = [
    *("task=gym", "task.id=Pendulum-v1", "task.name=pendulum", "threads=1", "logger=wandb"),
    *("policy.network.down_dims=[16,32]", "policy.horizon=8", "policy.n_action_steps=4"),
    *("policy.chain.train_steps=20", "policy.chain.steps=20"),
    *("steps=4", "batch_size=8", "log_every=2", "save_every=2", "validate_every=2", "data_hz=20", "any_rate=true"),
]
CALIBRATE = ["chains=24", "rounds=16", "training_steps=8", "steps=[6]", "threads=1", "held_out=0", "student=false"]
CALIBRATE += ["engine=eager"]


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    """Nothing is written but below tmp_path, and no user is known."""
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(monkeypatch):
    return fake_wandb.Server().install(monkeypatch)


@pytest.fixture
def data(tmp_path, write_demonstrations):
    return write_demonstrations(tmp_path / "pendulum.hdf5")


@pytest.fixture
def drifting(server, policy_config, monkeypatch, tmp_path):
    """A small untrained policy for the task drift, which the server has, and how a verb plays it."""
    monkeypatch.syspath_prepend(str(TASKS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TASKS), os.environ.get("PYTHONPATH", "")]))
    torch.manual_seed(1)
    policy_config["chain"] = {"train_steps": 12, "steps": 12}
    policy_config["task"] = {"name": "drift", "id": "drift_env:Drift-v0", "observation_keys": None}
    policy = DiffusionPolicy.from_config(policy_config)
    server.add("specpolicy", "drift-unet", contents(policy.save(tmp_path / "policy")))
    return policy


DRIFT = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "workers=1", "videos=0", "episodes=2"]


@pytest.fixture
def observations(tmp_path):
    source, sizes = np.random.default_rng(0), {"position": 2, "object": 3}
    seen = {key: source.normal(size=(30, 2, size)).astype(np.float32) for key, size in sizes.items()}
    save_file(seen, tmp_path / "seen.safetensors")
    return tmp_path / "seen.safetensors"


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def refused(capsys, *arguments):
    """The one line on stderr of a command that must exit with 2."""
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def train(data, output, *more):
    assert main(["train", *TRAIN, f"data={data}", f"output={output}", *more]) == 0


def test_train_logs_its_policy_offline(data, tmp_path, capsys):
    """A real run, read back."""
    train(data, tmp_path / "run", "logger.mode=offline", "predict=1")
    assert "logged as" not in capsys.readouterr().out  # which version it becomes is not known before it is sent
    (directory,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    run, policy = read_run(directory), load_policy(tmp_path / "run")
    logged = run.artifacts["pendulum-unet"]
    assert logged.kind == "model" and logged.aliases == ["latest"]
    written = contents(tmp_path / "run")
    names = ("model.safetensors", "config.json", "prediction.safetensors", "prediction.json")
    assert logged.files == {name: written[name] for name in names}
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    about = logged.metadata
    assert about["task"]["id"] == "Pendulum-v1" and about["control_hz"] == 20 and about["steps"] == 4
    assert about["fingerprint"] == policy.fingerprint and about["train_loss"] == float(rows[-1]["train/loss"])
    assert about["parameters"] == sum(one.numel() for one in policy.denoiser.parameters())
    assert about["score"]["value"] == about["validation_loss"] == float(rows[-1]["validation/loss"])
    assert run.config["data_fingerprint"] == about["data_fingerprint"] == read_data(data, ["state"]).fingerprint
    assert run.config["control_hz"] == 20 and run.config["task"]["name"] == "pendulum"


def test_the_best_version_keeps_its_alias(data, server, tmp_path, capsys):
    losses = {}
    for number, more in enumerate((["seed=0"], ["seed=1"], ["seed=2"], ["learning_rate=1e-6"])):
        train(data, tmp_path / f"run{number}", *more)
        assert f"logged as wandb:team/specpolicy/pendulum-unet:v{number}" in capsys.readouterr().out
        losses[f"v{number}"] = server.versions["specpolicy", "pendulum-unet"][number].metadata["validation_loss"]
        best = server.aliases["specpolicy", "pendulum-unet", "best"].version
        assert best == min(losses, key=losses.get)
        assert server.aliases["specpolicy", "pendulum-unet", "latest"].version == f"v{number}"
    assert len(set(losses.values())) == 4
    # A loss on other windows is no better one.
    best = server.aliases["specpolicy", "pendulum-unet", "best"].version
    train(data, tmp_path / "other", "policy.horizon=4", "policy.n_action_steps=2")
    assert "best stays what it is: it was scored by other data" in capsys.readouterr().err
    assert server.aliases["specpolicy", "pendulum-unet", "best"].version == best
    (tmp_path / "best").mkdir()
    for name, content in server.find("pendulum-unet:best", "specpolicy").files.items():
        (tmp_path / "best" / name).write_bytes(content)
    assert load_policy("wandb:pendulum-unet:best").fingerprint == load_policy(tmp_path / "best").fingerprint


def test_other_objectives_have_their_own_names_and_scores_say_who_played(data, server, tmp_path):
    flow = [one for one in TRAIN if not one.startswith(("policy.chain", "steps"))]
    flow += ["policy.objective=flow", "steps=2", "rollout_every=2", "rollout_episodes=1", "rollout_seconds=0.1"]
    for number, more in enumerate(([], ["rollout_sampler=euler-5"])):
        assert main(["train", *flow, f"data={data}", f"output={tmp_path / str(number)}", *more]) == 0
    given = [one.metadata["score"]["given"] for one in server.versions["specpolicy", "pendulum-unet-flow"]]
    assert given == [f"1 episodes of pendulum, 0.1 s, {sampler}" for sampler in ("euler-10", "euler-5")]


def test_train_keeps_its_policy_to_itself_if_told_to(data, server, tmp_path):
    train(data, tmp_path / "run", "logger.log_model=false")
    assert server.versions == {} and load_policy(tmp_path / "run").horizon == 8


def test_a_policy_that_is_not_taken_is_on_the_disk(data, server, tmp_path, capsys, monkeypatch):
    def refuse(run, artifact, aliases):
        raise ConnectionError("storage quota exceeded")

    monkeypatch.setattr(fake_wandb.FakeRun, "log_artifact", refuse)
    arguments = ["train", *TRAIN, f"data={data}", f"output={tmp_path / 'run'}"]
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "model.safetensors" in line and "written, but not logged as an artifact" in line and "quota exceeded" in line
    assert load_policy(tmp_path / "run").horizon == 8


def test_scores_are_compared_where_they_can_be():
    score = Score("validation/loss", "abc", 0.5)
    assert score.beats({"measure": "validation/loss", "given": "abc", "value": 0.6})
    assert not score.beats({"measure": "validation/loss", "given": "abc", "value": 0.5})
    assert score.beats({"measure": "validation/loss", "given": "abd", "value": 0.6}) is None
    assert score.beats({}) is None
    success = Score("rollout/success", "10", 0.5, higher=True)
    assert success.beats({"measure": "rollout/success", "given": "10", "value": 0.4})
    assert not success.beats({"measure": "rollout/success", "given": "10", "value": 0.6})


def test_evaluate_uses_an_artifact_and_names_it(drifting, server, tmp_path):
    output = tmp_path / "out"
    arguments = ["evaluate", *DRIFT, "policy=wandb:drift-unet", "samplers=[ddim-2]", f"output={output}"]
    assert main([*arguments, "logger=wandb"]) == 0
    assert server.downloads == ["drift-unet:v0"] and server.used == ["drift-unet:v0"]
    summary = json.loads((output / "summary.json").read_text())
    digest = server.versions["specpolicy", "drift-unet"][0].digest
    assert summary["policy"]["path"] == "wandb:team/specpolicy/drift-unet:v0"
    assert summary["policy"]["artifact"] == {"name": "team/specpolicy/drift-unet:v0", "digest": digest}
    assert summary["policy"]["fingerprint"] == fingerprint(drifting)
    assert "wandb:team/specpolicy/drift-unet:v0" in (output / "report.html").read_text()
    assert "policy: wandb:team/specpolicy/drift-unet:v0" in (output / "config.yaml").read_text()
    assert main([*arguments[:-1], f"output={tmp_path / 'again'}"]) == 0  # without a logger nothing is recorded
    assert server.downloads == ["drift-unet:v0"] and server.used == ["drift-unet:v0"]


def test_runs_say_what_they_measured_and_where(drifting, server, observations, tmp_path, monkeypatch):
    configs, begin = [], server.init
    monkeypatch.setattr("wandb.init", lambda **options: configs.append(options["config"]) or begin(**options))
    policy = ["policy=wandb:drift-unet", "logger=wandb", "samplers=[ddim-2]"]
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
    arguments = ["benchmark", "policy=wandb:drift-unet", "samplers=[ddim-2]", "count=2", "threads=1"]
    assert main([*arguments, f"output={tmp_path / 'out'}"]) == 0
    assert "drift-unet:v1" in (tmp_path / "out" / "summary.json").read_text()


def test_python_and_the_demonstration_take_an_artifact(drifting, server, observations, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SAMPLERS", ("ddpm", "block"))
    files = {**contents(tmp_path / "policy"), "observations.safetensors": observations.read_bytes()}
    server.add("specpolicy", "drift-unet", files)
    found = specpolicy.benchmark("wandb:drift-unet", ["ddim-2"], 2, output=tmp_path / "out", quiet=True, threads=1)
    assert found.summary["policy"]["artifact"]["name"] == "team/specpolicy/drift-unet:v1"
    lines: list[str] = []
    demo.run(Path("wandb:drift-unet"), "eager", 2, lines.append)
    assert lines[0].startswith("wandb:drift-unet, a chunk of 12 steps") and server.downloads == ["drift-unet:v1"]


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
    assert second.metadata["12_steps/calls"] == Calibration.load(output).plans["cpu"][12].calls
    policy = load_policy("wandb:drift-unet:calibrated")
    assert policy.best_sampler == "recycled" and policy.fingerprint == drifting.fingerprint
    # What was learnt is kept where only the machine is another one; the versions stay what they were.
    again = ["policy=wandb:drift-unet", f"output={tmp_path / 'again'}", "learn=false", f"observations={observations}"]
    assert main(["calibrate", *again, "steps=[6]", "threads=1"]) == 0
    assert Calibration.load(tmp_path / "again").plans["cpu"].keys() == {6, 12}
    assert contents(tmp_path / "again").keys() == {"speculation.safetensors", "speculation.json"}


def test_calibrate_logs_a_policy_of_another_project_as_a_checkpoint_of_ours(server, tmp_path):
    policy = load_policy(LEROBOT)
    shapes = {key: (30, *policy.frame_shape(key)) for key in policy.observation_keys}
    source = np.random.default_rng(0)
    save_file({key: source.uniform(size=shape).astype(np.float32) for key, shape in shapes.items()}, tmp_path / "seen")
    arguments = ["calibrate", f"policy={LEROBOT}", f"observations={tmp_path / 'seen'}", f"output={tmp_path / 'out'}"]
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


def test_the_run_that_a_sweep_has_begun_is_gone_on_with(server, tmp_path, monkeypatch):
    with make_logger({"name": "wandb"}, tmp_path) as logger:
        own = logger.loggers[1].run.id
    monkeypatch.setenv("WANDB_RUN_ID", "sweeping")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with make_logger({"name": "wandb"}, tmp_path) as logger:
        assert logger.loggers[1].run.id == "sweeping" != own and logger.loggers[1].run.project == "mine"
    monkeypatch.delenv("WANDB_RUN_ID")
    with make_logger({"name": "wandb", "project": "theirs"}, tmp_path) as logger:
        assert logger.loggers[1].run.id == "sweeping" and logger.loggers[1].run.project == "theirs"
