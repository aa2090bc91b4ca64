"""The ROS 2 node of the examples, with a stand-in of rclpy: ROS itself is not installed here."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from ros_stand_in import World

from specpolicy import SpecpolicyError
from specpolicy.policy import DiffusionPolicy

EXAMPLE = Path(__file__).parents[1] / "examples" / "ros2_node.py"


@pytest.fixture
def policy(policy_config, tmp_path):
    """Observes and moves three joints."""
    torch.manual_seed(0)
    unit = {"scale": [2.0] * 3, "offset": [0.0] * 3}
    policy_config |= {"observation": {"observation.state": 3}, "action_dim": 3}
    policy_config["normaliser"] = {"observation.state": unit, "action": unit}
    policy_config["chain"] = {"train_steps": 12, "steps": 12}
    return str(DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy"))


def example(monkeypatch, parameters, **options):
    """The example's names, and its world."""
    world = World({"joints": ["j1", "j2", "j3"], "worker": "thread", "max_age": 60.0, **parameters}, **options)
    world.install(monkeypatch)
    return runpy.run_path(str(EXAMPLE)), world


def test_the_node_commands_its_joints_and_holds_them_at_the_end(policy, monkeypatch, capsys):
    parameters = {"policy": policy, "sampler": "ddim-3", "seconds": 1.0, "hz": 10.0, "rate": 0.4}
    names, world = example(monkeypatch, parameters)
    names["main"]()
    sent = np.array(world.published)
    assert 2 <= len(sent) <= 11 and world.topic == "/forward_position_controller/commands"
    assert np.abs(sent[0] - [0.1, 0.2, 0.3]).max() <= 0.4 / 10 + 1e-6  # in the order of the parameter
    assert np.abs(np.diff(sent[:-1], axis=0)).max() <= 0.4 / 10 + 1e-6
    assert world.acknowledged == 1 and any((sent[-1] == earlier).all() for earlier in sent[:-1])  # where they are
    assert world.events == ["node specpolicy", "spun", "node destroyed", "shut down"]
    assert "control at 10 Hz" in capsys.readouterr().out


def test_joint_states_that_stop_coming_stop_the_robot(policy, monkeypatch):
    parameters = {"policy": policy, "sampler": "ddim-3", "seconds": 60.0, "max_age": 0.3}
    names, world = example(monkeypatch, parameters, silent_after=3)
    with pytest.raises(SpecpolicyError, match=r"the newest message of states is .* s old") as raised:
        names["main"]()
    age = re.search(r"is (.*) s old \(max_age\)", str(raised.value))
    assert float(age[1]) >= 0.3
    assert world.published[-1] == world.said and world.acknowledged == 1 and world.events[-1] == "shut down"


def test_a_policy_that_cannot_be_loaded_shuts_ros_down(monkeypatch, tmp_path):
    names, world = example(monkeypatch, {"policy": str(tmp_path / "none")})
    with pytest.raises(SpecpolicyError):
        names["main"]()
    assert world.events == ["node specpolicy", "node destroyed", "shut down"] and not world.published


@pytest.mark.parametrize("joints", ([""], ["j1", "j2"]), ids=("none", "two"))
def test_joints_that_the_policy_does_not_move_are_refused(joints, policy, monkeypatch):
    names, world = example(monkeypatch, {"policy": policy, "joints": joints})
    with pytest.raises(SpecpolicyError, match=r"joints: (none|j1, j2); the policy moves 3: name each, in its order"):
        names["main"]()
    assert world.events[-1] == "shut down" and not world.published


def test_a_camera_without_a_topic_is_refused(monkeypatch):
    names, _ = example(monkeypatch, {"cameras": ["front"]})
    with pytest.raises(SpecpolicyError, match="cameras: 'front' names no topic"):
        names["RosRobot"](names["Node"]("specpolicy"))


def test_images_are_seen_red_first_without_padding(monkeypatch):
    names, world = example(monkeypatch, {"cameras": ["front:/camera/image_raw"]})
    robot = names["RosRobot"](names["Node"]("specpolicy"))
    with pytest.raises(SpecpolicyError, match="no message on the topic of states"):
        robot.wait(0.01)
    picture = {"Image": names["Image"], "JointState": names["JointState"]}
    rows = bytes([1, 2, 3] * 4 + [0] * 4) * 2
    world.say(picture["Image"], picture["Image"](2, 4, 16, "bgr8", rows))
    world.say(picture["JointState"], picture["JointState"](["j3", "j1", "j2"], [3.0, 1.0, 2.0]))
    robot.wait(0.01)
    seen = robot.observe()
    assert seen["observation.state"].tolist() == [1, 2, 3] and seen["observation.state"].dtype == np.float32
    assert seen["observation.images.front"].shape == (2, 4, 3)
    assert seen["observation.images.front"][1, 3].tolist() == [3, 2, 1]
    world.say(picture["Image"], picture["Image"](2, 4, 16, "mono16", rows))
    with pytest.raises(SpecpolicyError, match="an image is mono16: use rgb8 or bgr8"):
        robot.observe()


def test_joint_states_that_lack_a_joint_are_left_out(monkeypatch):
    names, world = example(monkeypatch, {})
    robot = names["RosRobot"](names["Node"]("specpolicy"))
    world.say(names["JointState"], names["JointState"](["j3", "j1"], [3.0, 1.0]))
    lack = "no message on the topic of states for 0.01 s with a position of 'j2': there are j3, j1"
    with pytest.raises(SpecpolicyError, match=lack):
        robot.wait(0.01)
    robot.stop()
    assert not world.published
    world.say(names["JointState"], names["JointState"](["j3", "j1", "j2"], [3.0, 1.0, 2.0]))
    for partial in (["j1", "j2"], [7.0, 8.0]), (["j1", "j2", "j3"], []):  # velocities may come without positions
        world.say(names["JointState"], names["JointState"](*partial))
    assert robot.position().tolist() == [1, 2, 3]
    robot.stop()
    assert world.published == [[1, 2, 3]]
