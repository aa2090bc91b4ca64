"""`specpolicy control robot=lerobot:...`, with a stand-in of LeRobot."""

import json
import re
import signal
import sys

import pytest
import torch
from lerobot_stand_in import Arm, install
from omegaconf import OmegaConf

from specpolicy.cli import main
from specpolicy.policy import DiffusionPolicy

FAST = [
    "worker=thread",
    "lead=1",
    "warm_up=1",
    "max_seconds=0.4",
    "watchdog=60",
    "inference_timeout=60",
    "engine=eager",
]
ARM = ["robot=lerobot:stand_in_arm", "+robot.config.port=/dev/ttyACM0"]


@pytest.fixture
def policy(policy_config, tmp_path):
    """A small policy that observes and moves three joints at 20 Hz."""
    torch.manual_seed(0)
    unit = {"scale": [0.05] * 3, "offset": [0.0] * 3}
    policy_config |= {"observation": {"observation.state": 3}, "action_dim": 3, "control_hz": 20.0}
    policy_config["normaliser"] = {"observation.state": unit, "action": unit}
    policy_config["chain"] = {"train_steps": 12, "steps": 12}
    return str(DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy"))


def control(policy, tmp_path, *settings):
    return main(["control", f"policy={policy}", f"output={tmp_path / 'out'}", *FAST, *settings])


def test_a_robot_is_moved_reported_and_disconnected(policy, tmp_path, capsys, monkeypatch):
    made = install(monkeypatch)
    assert control(policy, tmp_path, *ARM, "+robot.config.max_relative_target=0.5", "limits.rate=1000") == 0
    (arm,) = made
    assert arm.config.port == "/dev/ttyACM0" and arm.connects == [False]
    assert len(arm.sent) >= 2 and arm.disconnects == 1 and not arm.is_connected
    printed = capsys.readouterr().out
    assert f"lerobot:stand_in_arm: {len(arm.sent)} actions sent, " in printed and "control at 20 Hz" in printed
    report = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert (report["robot"], report["actions"]) == ("lerobot:stand_in_arm", len(arm.sent)) and "task" not in report
    assert 0 < report["changed_actions"] <= report["actions"] and report["error"] is None
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").robot.type == "stand_in_arm"


def test_tables_and_units_are_settings(policy, tmp_path, monkeypatch):
    made = install(monkeypatch)
    tables = [
        "robot.observation={observation.state: [gripper.pos, lift.pos, pan.pos]}",
        "robot.action=[gripper.pos, lift.pos, pan.pos]",
        "robot.units={pan.pos: degrees_to_radians}",
        "robot.position=[gripper.pos, lift.pos, 0]",
    ]
    assert control(policy, tmp_path, *ARM, *tables) == 0
    assert list(made[0].sent[0]) == ["gripper.pos", "lift.pos", "pan.pos"]


def test_what_ends_the_run_disconnects_the_robot(policy, tmp_path, capsys, monkeypatch):
    made = install(monkeypatch, fault="act")
    assert control(policy, tmp_path, *ARM, "max_seconds=60") == 2
    assert "robot.act() failed: RuntimeError: a motor does not answer" in capsys.readouterr().err
    assert made[0].disconnects == 1
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["error"].startswith("robot.act() failed")


def test_a_signal_while_it_is_connected_leaves_no_robot_powered(policy, tmp_path, monkeypatch):
    made = install(monkeypatch)

    def connect(arm, calibrate):
        arm.bus.is_connected = True
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # it would end the tests
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Arm, "connect", connect)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as left:
            control(policy, tmp_path, *ARM)
        assert left.value.code == 143 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert made[0].disconnects == 1 and not made[0].is_connected


def test_what_is_moved_is_asked_for_before_a_policy_is_fetched(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("specpolicy.cli.policies.pin", lambda config: pytest.fail("the policy is fetched first"))
    assert control("wandb:mine:latest", tmp_path) == 2
    assert "neither is given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    (
        ([], "neither is given; write task=<one of can"),
        ([*ARM, "task=lift"], "both are given"),
        (["robot=lerobot"], "robot.type is required"),
        (["robot=leerobot:x"], "unknown robot 'leerobot:x'"),
        (["robot=lerobot:so1_follower"], "LeRobot has no such robot; it has stand_in_arm"),
        (["robot=lerobot:stand_in_arm"], "TypeError: .*'port'.*set by \\+robot.config.<field>="),
        (["robot=lerobot:stand_in_arm", "robot.config.port=x"], "to add a key write \\+robot.config.port=x"),
        ([*ARM, "robot.actions=[x]"], "unknown key 'robot.actions'; did you mean 'robot.action'"),
        ([*ARM, "robot.action=[elbow.pos]"], "action: the robot has no joint 'elbow.pos'"),
        ([*ARM, "robot.observation={observation.state: [pan.pos]}"], "expects 'observation.state' of size 3"),
        ([*ARM, "clock=paused"], "clock=paused: the time of a real robot"),
        ([*ARM, "policy=expert"], "a robot has none"),
        ([*ARM, "hz=7"], "trained at 20 control steps per second"),
        ([*ARM, "limits.rate=-1"], "limits"),
    ),
)
def test_what_cannot_be_is_one_line(settings, words, policy, tmp_path, capsys, monkeypatch):
    made = install(monkeypatch)
    assert control(policy, tmp_path, *settings) == 2
    error = capsys.readouterr().err
    assert error.startswith("specpolicy control: ") and error.count("\n") == 1
    assert re.search(words, error), error
    assert not any(arm.connects for arm in made)  # nothing was moved, or even switched on


def test_without_lerobot_the_line_says_where_to_find_it(policy, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    assert control(policy, tmp_path, *ARM) == 2
    assert "LeRobot cannot be imported" in capsys.readouterr().err


def test_a_policy_without_a_rate_needs_one(policy_config, policy, tmp_path, capsys, monkeypatch):
    install(monkeypatch)
    bare = DiffusionPolicy.from_config({**policy_config, "control_hz": None}).save(tmp_path / "bare")
    assert control(bare, tmp_path, *ARM) == 2
    assert "hz is required" in capsys.readouterr().err
    assert control(bare, tmp_path, *ARM, "hz=30") == 0
