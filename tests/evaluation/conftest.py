"""A task without a simulator and a checkpoint that fits it."""

import copy
from pathlib import Path

import pytest
import torch

from specpolicy.policy import DiffusionPolicy

HERE = str(Path(__file__).parent)


@pytest.fixture
def drift_task(monkeypatch) -> dict:
    """The configuration of the task drift; worker processes find its module, too."""
    monkeypatch.syspath_prepend(HERE)
    return {"name": "drift", "id": "drift_env:Drift-v0", "kwargs": {"coverage": True}, "observation_keys": None}


@pytest.fixture
def drift_policy(policy_config, tmp_path) -> str:
    """A small untrained policy: it drifts about, sometimes out of the circle."""
    return save_drift_policy(policy_config, tmp_path / "policy")


@pytest.fixture(scope="session")
def kept_drift_policy(small_policy_config, tmp_path_factory) -> str:
    """The same for fixtures of a wider scope, not to be changed."""
    return save_drift_policy(copy.deepcopy(small_policy_config), tmp_path_factory.mktemp("kept") / "policy")


def save_drift_policy(config, path) -> str:
    torch.manual_seed(1)
    config["normaliser"]["action"] = {"scale": [2.0, 2.0], "offset": [0.0, 0.0]}
    config["chain"] = {"train_steps": 12, "steps": 12}
    return str(DiffusionPolicy.from_config(config).save(path))


@pytest.fixture
def without_plots(monkeypatch):
    """Plots take most of the time of so small an evaluation."""
    monkeypatch.setattr("specpolicy.evaluation.plots.write_plots", lambda *arguments: {})
