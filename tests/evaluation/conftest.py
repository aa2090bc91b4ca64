"""A task without a simulator and a checkpoint that fits it."""

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
    torch.manual_seed(1)
    policy_config["normaliser"]["action"] = {"scale": [2.0, 2.0], "offset": [0.0, 0.0]}
    policy_config["chain"] = {"train_steps": 12, "steps": 12}
    return str(DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy"))
