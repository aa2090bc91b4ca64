"""What train logs at Weights & Biases: its policy, the best one under its alias, and the run that a sweep began."""

import csv

import fake_wandb
import pytest
from wandb_run import read_run

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.data.dataset import read_data
from specpolicy.logging import Score, make_logger

pytestmark = pytest.mark.usefixtures("own_places")

TRAIN = [
    *("task=gym", "task.id=Pendulum-v1", "task.name=pendulum", "threads=1", "logger=wandb"),
    *("policy.network.down_dims=[16,32]", "policy.horizon=8", "policy.n_action_steps=4"),
    *("policy.chain.train_steps=20", "policy.chain.steps=20"),
    *("steps=4", "batch_size=8", "log_every=2", "save_every=2", "validate_every=2", "data_hz=20", "any_rate=true"),
]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def train(data, output, *more):
    assert main(["train", *TRAIN, f"data={data}", f"output={output}", *more]) == 0


def test_train_logs_its_policy_offline(pendulum, tmp_path, capsys):
    """A real run, read back."""
    train(pendulum, tmp_path / "run", "logger.mode=offline", "predict=1")
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
    assert run.config["data_fingerprint"] == about["data_fingerprint"] == read_data(pendulum, ["state"]).fingerprint
    assert run.config["control_hz"] == 20 and run.config["task"]["name"] == "pendulum"


def test_the_best_version_keeps_its_alias(pendulum, server, tmp_path, capsys):
    losses = {}
    for number, more in enumerate((["seed=0"], ["seed=1"], ["seed=2"], ["learning_rate=1e-6"])):
        train(pendulum, tmp_path / f"run{number}", *more)
        assert f"logged as wandb:team/specpolicy/pendulum-unet:v{number}" in capsys.readouterr().out
        losses[f"v{number}"] = server.versions["specpolicy", "pendulum-unet"][number].metadata["validation_loss"]
        best = server.aliases["specpolicy", "pendulum-unet", "best"].version
        assert best == min(losses, key=losses.get)
        assert server.aliases["specpolicy", "pendulum-unet", "latest"].version == f"v{number}"
    assert len(set(losses.values())) == 4
    # A loss on other windows is no better one.
    best = server.aliases["specpolicy", "pendulum-unet", "best"].version
    train(pendulum, tmp_path / "other", "policy.horizon=4", "policy.n_action_steps=2")
    assert "best stays what it is: it was scored by other data" in capsys.readouterr().err
    assert server.aliases["specpolicy", "pendulum-unet", "best"].version == best
    (tmp_path / "best").mkdir()
    for name, content in server.find("pendulum-unet:best", "specpolicy").files.items():
        (tmp_path / "best" / name).write_bytes(content)
    assert load_policy("wandb:pendulum-unet:best").fingerprint == load_policy(tmp_path / "best").fingerprint


def test_other_objectives_have_their_own_names_and_scores_say_who_played(pendulum, server, tmp_path):
    flow = [one for one in TRAIN if not one.startswith(("policy.chain", "steps"))]
    flow += ["policy.objective=flow", "steps=2", "rollout_every=2", "rollout_episodes=1", "rollout_seconds=0.1"]
    for number, more in enumerate(([], ["rollout_sampler=euler-5"])):
        assert main(["train", *flow, f"data={pendulum}", f"output={tmp_path / str(number)}", *more]) == 0
    given = [one.metadata["score"]["given"] for one in server.versions["specpolicy", "pendulum-unet-flow"]]
    assert given == [f"1 episodes of pendulum, 0.1 s, {sampler}" for sampler in ("euler-10", "euler-5")]


def test_train_keeps_its_policy_to_itself_if_told_to(pendulum, server, tmp_path):
    train(pendulum, tmp_path / "run", "logger.log_model=false")
    assert server.versions == {} and load_policy(tmp_path / "run").horizon == 8


def test_a_policy_that_is_not_taken_is_on_the_disk(pendulum, server, tmp_path, capsys, monkeypatch):
    def refuse(run, artifact, aliases):
        raise ConnectionError("storage quota exceeded")

    monkeypatch.setattr(fake_wandb.FakeRun, "log_artifact", refuse)
    arguments = ["train", *TRAIN, f"data={pendulum}", f"output={tmp_path / 'run'}"]
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
