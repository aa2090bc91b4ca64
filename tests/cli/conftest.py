"""Small policies of a task without a simulator, every verb with little to do, Weights & Biases without a network."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from specpolicy.cli import VERBS, main
from specpolicy.policy import DiffusionPolicy

TASKS = str(Path(__file__).parents[1] / "evaluation")  # where drift_env.py, a task without a simulator, lies
PENDULUM = ["task=gym", "task.id=Pendulum-v1", "threads=1"]
DRIFT = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0"]
SMALL = ["policy.network.down_dims=[16,32]", "policy.horizon=8", "policy.n_action_steps=4"]
CHAIN = ["policy.chain.train_steps=20", "policy.chain.steps=20", "steps=2", "batch_size=8", "save_every=1"]
KEYS = {"convert": "out", "merge": "out"}  # what a verb's output is called, if not output


@pytest.fixture(scope="session")
def drifter(small_policy_config, tmp_path_factory):
    """A small untrained policy of the task drift; nobody writes there."""
    torch.manual_seed(0)
    config = {**small_policy_config, "chain": {"train_steps": 12, "steps": 12}}
    return DiffusionPolicy.from_config(config).save(tmp_path_factory.mktemp("policies") / "policy")


@pytest.fixture(scope="session")
def observations(tmp_path_factory):
    """A file of recorded observations of small policies."""
    path, source = tmp_path_factory.mktemp("observations") / "seen.safetensors", np.random.default_rng(0)
    sizes = {"position": 2, "object": 3}
    save_file({key: source.normal(size=(30, 2, size)).astype(np.float32) for key, size in sizes.items()}, path)
    return path


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory, write_demonstrations):
    """A file of demonstrations; nobody writes there."""
    return write_demonstrations(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="session")
def shard(drifter, tmp_path_factory):
    """The only shard of an evaluation, with recorded actions."""
    output = tmp_path_factory.mktemp("shards")
    little = ["episodes=1", "workers=0", "videos=0", "samplers=[ddim-4]", "shard=1/1", "record_actions=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TASKS)
        assert main(["evaluate", *DRIFT, f"policy={drifter}", "engine=eager", *little, f"output={output}"]) == 0
    return output / "shards" / "1-of-1"


@pytest.fixture
def run(drifter, observations, pendulum, shard, monkeypatch):
    """Runs a verb with little to do, on an engine that nothing is made for."""
    monkeypatch.syspath_prepend(TASKS)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    plays = [f"policy={drifter}", "engine=eager"]
    measures = [f"policy={drifter}", "threads=1", f"observations={observations}"]
    little = ["chains=24", "invented=24", "rounds=16", "training_steps=20", "steps=[6]", "held_out=0"]
    arguments = {
        "collect": ["task=push_t", "episodes=1", "workers=0"],
        "train": [*PENDULUM, *SMALL, *CHAIN, f"data={pendulum}"],
        "calibrate": [*measures, "engine=eager", *little],
        "train_drafter": [*measures, "chains=24", "training_steps=12", "down_dims=[8,16]"],
        "evaluate": [*DRIFT, *plays, "episodes=1", "workers=0", "videos=0", "samplers=[ddim-4]"],
        "merge": [str(shard)],
        "replay": [f"path={shard}"],
        "benchmark": [*measures, "engine=eager", "samplers=[ddim-4]", "count=2"],
        "control": [*DRIFT, *plays, "clock=paused", "sampler=ddim-4"],
        "serve": [*plays, "port=0"],
        "rollout": [*DRIFT, *plays, "sampler=ddim-4", "viewer=false", "video=false"],
        "convert": [f"path={drifter}"],
    }
    assert arguments.keys() == VERBS.keys()

    def start(verb, output, *more):
        return main([verb, *arguments[verb], f"{KEYS.get(verb, 'output')}={output}", *more])

    return start


@pytest.fixture
def own_places(monkeypatch, tmp_path):
    """Nothing of Weights & Biases is written but below tmp_path, and no user is known."""
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(own_places, monkeypatch):
    """What stands in for Weights & Biases' servers."""
    import fake_wandb

    return fake_wandb.Server().install(monkeypatch)


@pytest.fixture
def drifting(server, policy_config, monkeypatch, tmp_path):
    """A small untrained policy of a few steps for the task drift, which the server has; it lies in `policy`, too."""
    monkeypatch.syspath_prepend(TASKS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([TASKS, os.environ.get("PYTHONPATH", "")]))
    torch.manual_seed(1)
    policy_config["chain"] = {"train_steps": 6, "steps": 6}
    policy_config["task"] = {"name": "drift", "id": "drift_env:Drift-v0", "observation_keys": None}
    policy = DiffusionPolicy.from_config(policy_config)
    files = {path.name: path.read_bytes() for path in policy.save(tmp_path / "policy").iterdir() if path.is_file()}
    server.add("specpolicy", "drift-unet", files)
    return policy
