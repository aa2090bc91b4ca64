"""Poses as actions lead where the changes of pose lead that they are made of."""

import json

import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specpolicy_envs
from specpolicy.cli import main
from specpolicy_envs.arm_control import rotation_matrix
from specpolicy_envs.arm_poses import NOISE_SCALE, change_to, pose_after, pose_of

numbers = st.floats(-1, 1)


@st.composite
def observations(draw):
    quaternion = np.array([draw(numbers) for _ in range(4)]) + np.array([0, 0, 0, 1.5])
    position = np.array([draw(numbers) for _ in range(3)])
    return {"robot0_eef_pos": position, "robot0_eef_quat": quaternion / np.linalg.norm(quaternion)}


@settings(max_examples=200, derandomize=True, deadline=None)
@given(observations(), st.lists(numbers, min_size=7, max_size=7))
def test_a_change_and_the_pose_it_leads_to_are_one_action(observation, change):
    np.testing.assert_allclose(change_to(observation, pose_after(observation, np.array(change))), change, atol=1e-6)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(observations(), observations(), st.floats(0.2, 3), numbers)
def test_a_far_pose_is_approached_straight_on(here, there, stretch, gripper):
    pose = pose_of(there, gripper)
    pose[3:9] *= stretch  # a network's rows have no length one
    change = change_to(here, pose)
    assert np.abs(change[:6]).max() <= 1 + 1e-9
    assert change[6] == gripper
    way = there["robot0_eef_pos"] - here["robot0_eef_pos"]
    np.testing.assert_allclose(np.cross(change[:3], way), 0, atol=1e-9)
    # What is turned is about the axis that leads there.
    axis = rotation_matrix(there["robot0_eef_quat"]) @ rotation_matrix(here["robot0_eef_quat"]).T @ change[3:6]
    np.testing.assert_allclose(axis, change[3:6], atol=1e-6)


def test_rows_that_say_nothing_are_still_a_rotation():
    here = {"robot0_eef_pos": np.zeros(3), "robot0_eef_quat": np.array([0.0, 0, 0, 1])}
    assert np.isfinite(change_to(here, np.zeros(10))).all()


@pytest.mark.parametrize("task", ["Lift", "NutAssemblySquare", "LiftConveyor"])
def test_an_expert_of_poses_plays_as_the_expert_of_changes(task):
    env_id = f"specpolicy/{task}-v0"
    ends = {}
    for absolute in (False, True):
        env = gymnasium.make(env_id, absolute_actions=absolute)
        expert = specpolicy_envs.make_expert(env_id, 0, absolute)
        observation, _ = env.reset(seed=7)
        path = []
        for _ in range(15):
            action = np.asarray(expert.act(observation), np.float32)
            assert action in env.action_space
            observation = env.step(action)[0]
            path.append(np.concatenate([observation["robot0_eef_pos"], observation["object"]]))
        ends[absolute] = np.stack(path)
        if absolute:
            resting = env.unwrapped.resting_action()
            np.testing.assert_allclose(change_to(observation, resting), np.zeros(7), atol=1e-6)
            assert env.unwrapped.env_args()["env_kwargs"]["absolute_actions"]
        env.close()
    assert np.abs(np.diff(ends[True][:, :3], axis=0)).max() > 0.005  # it moves
    np.testing.assert_allclose(ends[True], ends[False], atol=2e-4)


def test_demonstrations_of_poses_say_so_and_a_policy_of_changes_is_told(tmp_path, capsys):
    data = tmp_path / "poses.hdf5"
    few = ["episodes=2", "workers=0", f"output={data}"]
    assert main(["collect", "task=lift", "+task.kwargs.absolute_actions=true", *few]) == 0
    with h5py.File(data) as file:
        described = json.loads(file["data"].attrs["env_args"])
        executed, labels = (file["data/demo_0"][key][:] for key in ("executed_actions", "actions"))
    assert described["env_kwargs"]["absolute_actions"] and described["env_name"] == "specpolicy/Lift-v0"
    assert labels.shape[1] == 10
    noise = (executed - labels).std(axis=0) / (0.15 * NOISE_SCALE)
    np.testing.assert_allclose(noise[:6], 1, rtol=0.4)  # of some 40 steps
    capsys.readouterr()
    command = ["evaluate", "task=lift", "policy=checkpoints/lift", f"output={tmp_path / 'evaluated'}"]
    assert main([*command, "+task.kwargs.absolute_actions=true"]) == 2
    error = capsys.readouterr().err
    assert "7 numbers" in error and "+task.kwargs.absolute_actions=false" in error


@pytest.mark.parametrize("task", ["Lift", "NutAssemblySquare", "PickPlaceCan", "LiftConveyor"])
def test_a_scene_seen_from_another_pose_of_the_arm(task):
    env = gymnasium.make(f"specpolicy/{task}-v0")
    expert = specpolicy_envs.make_expert(f"specpolicy/{task}-v0", 0)
    old, _ = env.reset(seed=3)
    for _ in range(10):  # objects fall into place
        old = env.step(env.unwrapped.resting_action())[0]
    new = old
    for _ in range(12):
        new = env.step(np.asarray(expert.act(new)) + 0.3)[0]
    mixed = env.unwrapped.seen_from(new, old)
    assert np.abs(new["object"] - old["object"]).max() > 0.01
    for key in ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"):
        np.testing.assert_array_equal(mixed[key], old[key])
    # The scene hardly moved by itself but on the belt, so the gripper sees what it saw, where it stands as it stood.
    again = env.unwrapped.seen_from(mixed, new)
    for key in new:
        np.testing.assert_allclose(again[key], new[key], atol=2e-3)  # robosuite looks a simulation step apart
    if task != "LiftConveyor":
        np.testing.assert_allclose(mixed["object"], old["object"], atol=2e-3)
    assert mixed.keys() == new.keys()
    env.close()
