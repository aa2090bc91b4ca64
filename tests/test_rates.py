"""Control steps per second: read, compared, and refused where two of them differ."""

import json
from pathlib import Path

import numpy as np
import pytest

from specpolicy import SpecpolicyError, load_policy
from specpolicy.policy import DiffusionPolicy
from specpolicy.rates import check_rate, one_rate, parse_hz, same_rate
from specpolicy.tasks import control_hz, known_hz, make_task_env, task_hz

CHECKPOINTS = sorted((Path(__file__).parents[1] / "checkpoints").glob("*/config.json"))


@pytest.mark.parametrize("value", [20, 20.0, np.float32(20), np.int64(20), np.float64(12.5), 0.1])
def test_a_rate_is_a_positive_number(value):
    assert parse_hz(value, "hz") == float(value) and isinstance(parse_hz(value, "hz"), float)


@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), True, False, "20", b"20", "", [20], {}, 10**400, np.zeros(2), 1j]
)
def test_what_is_no_rate_is_refused(value, policy_config):
    with pytest.raises(SpecpolicyError, match=r"hz is .* positive number") as error:
        parse_hz(value, "hz")
    assert "\n" not in str(error.value)
    policy_config["control_hz"] = value
    with pytest.raises(SpecpolicyError, match="control_hz"):
        DiffusionPolicy.from_config(policy_config)


def test_what_is_not_known_contradicts_nothing():
    assert parse_hz(None, "hz") is None
    assert same_rate(None, 20) and same_rate(20, None) and same_rate(None, None) and same_rate(30, 29.97)
    assert not same_rate(20, 20.2) and not same_rate(10, 20)
    assert one_rate(None, 20.0, "a and b") == one_rate(20.0, None, "a and b") == 20 and one_rate(None, None, "") is None
    with pytest.raises(SpecpolicyError, match="a and b say 10 and 20"):
        one_rate(10.0, 20.0, "a and b")
    for policy_hz, hz, any_rate in ((None, 20, False), (20, None, False), (20, 20, False), (10, 20, True)):
        check_rate(policy_hz, hz, "the loop", "give hz=", any_rate)
    with pytest.raises(
        SpecpolicyError, match=r"trained at 10 .* the loop has 20: .* 2 times as fast; give hz=, or any_"
    ):
        check_rate(10, 20, "the loop", "give hz=")


def test_a_checkpoint_keeps_its_rate(policy_config, tmp_path):
    assert DiffusionPolicy.from_config(policy_config).control_hz is None
    for hz in (None, 12.5):
        DiffusionPolicy.from_config({**policy_config, "control_hz": hz}).save(tmp_path / "policy")
        assert load_policy(tmp_path / "policy").control_hz == hz
        assert json.loads((tmp_path / "policy/config.json").read_text()).get("control_hz") == hz


@pytest.mark.parametrize("config", CHECKPOINTS, ids=lambda path: path.parent.name)
def test_shipped_checkpoints_have_the_rate_of_their_task(config):
    found = json.loads(config.read_text())
    assert found["control_hz"] == task_hz(found["task"])


def test_a_task_says_its_rate_or_nothing(monkeypatch):
    assert task_hz({"id": "specpolicy/PushT-v0"}) == known_hz(make_task_env({"id": "specpolicy/PushT-v0"})) == 10
    assert task_hz({"id": "Pendulum-v1"}) == 20
    with pytest.raises(SpecpolicyError, match="Nothing-v0"):
        task_hz({"id": "Nothing-v0"})
    with pytest.raises(SpecpolicyError, match="no_such_package"):
        task_hz({"id": "no_such_package:Nothing-v0"})
    env = make_task_env({"id": "Pendulum-v1"})
    monkeypatch.delattr(env.unwrapped, "dt")
    monkeypatch.setattr(type(env.unwrapped), "metadata", {})
    assert known_hz(env) is None and control_hz(env) == 20
    monkeypatch.setattr(env.unwrapped, "control_hz", -5, raising=False)
    with pytest.raises(SpecpolicyError, match="control_hz is -5"):
        known_hz(env)
