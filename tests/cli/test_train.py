"""`specpolicy train` from the command line: a checkpoint that loads, rollouts, resumption, one line for bad input."""

import csv
import json

import pytest
import torch

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.training.state import STATE, RunState

TINY = [
    "task=gym",
    "task.id=Pendulum-v1",
    "policy.network.down_dims=[16,32]",
    "policy.horizon=8",
    "policy.n_action_steps=4",
    "policy.chain.train_steps=20",
    "policy.chain.steps=20",
    "steps=6",
    "batch_size=8",
    "log_every=2",
    "save_every=2",
    "validate_every=3",
    "threads=1",
]


@pytest.fixture
def data(tmp_path, write_demonstrations):
    return write_demonstrations(tmp_path / "pendulum.hdf5")


def train(data, output, *more):
    return main(["train", *TINY, f"data={data}", f"output={output}", *more])


class Killed(BaseException):
    """No error of a program, as a kill is none."""


def figures(row):
    """A row without what was measured by the clock."""
    return {name: value for name, value in row.items() if "second" not in name}


def rows(output):
    with open(output / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_it_writes_a_checkpoint_with_its_curves(data, tmp_path):
    output = tmp_path / "run"
    assert train(data, output, "rollout_every=6", "rollout_episodes=1", "rollout_seconds=0.5") == 0
    policy = load_policy(output)
    assert policy.observation_keys == ("state",) and policy.horizon == 8 and policy.action_dim == 1
    assert policy.config.task["id"] == "Pendulum-v1" and policy.config.command.startswith("specpolicy")
    last, played = rows(output)[-2:]
    assert (
        last["step"] == played["step"] == "6" and float(last["train/loss"]) > 0 and float(last["validation/loss"]) > 0
    )
    assert float(played["rollout/success"]) == 0 and float(played["rollout/length"]) > 0
    assert (output / "config.yaml").exists()


def test_it_goes_on_where_it_stopped(data, tmp_path, monkeypatch):
    whole, parts, update, run = tmp_path / "whole", tmp_path / "parts", RunState.update, []
    assert train(data, whole, "log_every=1") == 0

    def dying(self, learner, passes, step, group):
        run.append(step)
        if step == 5:
            raise Killed
        return update(self, learner, passes, step, group)

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "update", dying)
        with pytest.raises(Killed):
            train(data, parts, "log_every=1")
    # As a kill between two saves leaves it: the state of step 4, and a row that was logged after it.
    assert run == [0, 1, 2, 3, 4, 5] and rows(parts)[-1]["step"] == "5"
    assert torch.load(parts / STATE, weights_only=True)["step"] == 4
    assert train(data, parts, "log_every=1") == 0
    assert [figures(row) for row in rows(parts)] == [figures(row) for row in rows(whole)]
    same = load_policy(whole).denoiser.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in load_policy(parts).denoiser.state_dict().items())
    before = rows(parts)
    assert train(data, parts, "log_every=1") == 0 and rows(parts) == before  # nothing left to do


def test_what_only_watches_a_run_may_change_when_it_goes_on(data, tmp_path):
    output = tmp_path / "run"
    assert train(data, output) == 0
    before = rows(output)
    rollouts = ["rollout_every=3", "rollout_episodes=1", "rollout_sampler=ddim-5", "rollout_seconds=0.5"]
    assert train(data, output, "log_every=1", "validate_every=1", "save_every=3", *rollouts) == 0
    assert rows(output) == before  # it was the same run, with nothing left to do


def test_a_run_that_an_earlier_version_saved_goes_on(data, tmp_path):
    output = tmp_path / "run"
    assert train(data, output) == 0
    state = torch.load(output / "training.pt", weights_only=True)
    old = {"log_every": 2, "save_every": 2, "validate_every": 3, "rollout_every": 2}
    old |= {"rollout_episodes": 10, "rollout_sampler": None, "rollout_seconds": 60.0}
    assert not set(old) & set(state["identity"]["options"])
    state["identity"]["options"] |= old
    torch.save(state, output / "training.pt")
    assert train(data, output) == 0


def test_half_precision_weights_are_half_the_size(data, tmp_path):
    assert train(data, tmp_path / "full") == 0
    assert train(data, tmp_path / "half", "half_precision_weights=true") == 0
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert json.loads((tmp_path / "half/config.json").read_text())["action_dim"] == 1


@pytest.mark.parametrize(
    "more, word",
    (
        (["task.observation_keys=[velocity]"], "velocity"),
        (["policy.horizon=9"], "multiple of 2"),
        (["policy.network.depth=3"], "depth"),
        (["policy.chain.prediction=noise"], "prediction"),
        (["precision=float8"], "precision"),
        (["learning_rate=fast"], "learning_rate"),
        (["logger=tensorboard"], "tensorboard"),
        (["predict=5000"], "use predict="),
        (["validation=2"], "validation=2: expected a share between 0 and 1"),
        (["logger=wandb", "logger.mode=sometimes"], "=sometimes: expected online, offline or disabled"),
        (["data=nothing.hdf5"], "no demonstrations at"),
        (["rollout_every=2", "rollout_sampler=euler"], "'euler' solves the equation of a flow policy"),
        (["rollout_every=2", "task.id=MountainCarContinuous-v0", "any_rate=true"], "expects 'state' of size 3"),
    ),
)
def test_bad_input_is_one_line_and_exit_code_2(data, tmp_path, capsys, more, word):
    assert train(data, tmp_path / "run", *more) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and word in lines[0]
    assert not (tmp_path / "run").exists()


def test_other_options_on_the_same_output_are_refused(data, tmp_path, capsys):
    assert train(data, tmp_path / "run") == 0
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert train(data, tmp_path / "run", "learning_rate=1e-5") == 2
    assert "learning_rate" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_text() == saved
    assert train(data, tmp_path / "run", "learning_rate=1e-5", "overwrite=true") == 0


def test_a_policy_learns_to_wait(data, tmp_path, capsys):
    output = tmp_path / "run"
    assert train(data, output, "policy.prefix=3", "predict=2") == 0
    assert "1 to 2 steps ahead" in capsys.readouterr().out
    policy = load_policy(output)
    assert {"trained", "predicted"} <= set(policy.ways)
    assert policy.prefix.length == 3 and policy.predictor.options.steps == 2
    assert main(["convert", f"path={output}", f"out={tmp_path / 'half'}", "half_precision=true"]) == 0
    kept = load_policy(tmp_path / "half").predictor
    assert kept.options == policy.predictor.options and torch.equal(kept.weight, policy.predictor.weight)
    played = ["evaluate", "task=gym", "task.id=Pendulum-v1", f"policy={output}", "samplers=[ddim-2]", "episodes=1"]
    played += ["track=delay", "track.delays=[1]", "max_seconds=1", "workers=0", "videos=0", "engine=eager"]
    assert main([*played, "stitching=[trained,predicted]", f"output={tmp_path / 'played'}"]) == 0
    assert train(data, tmp_path / "plain") == 0
    assert not {"trained", "predicted"} & set(load_policy(tmp_path / "plain").ways)
