"""The robosuite tasks as Gymnasium environments: spaces, seeds, endings, what robomimic stores, frames."""

import copy
import importlib
import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import specpolicy_envs
from specpolicy_envs import rendering
from specpolicy_envs.lift import Lift
from specpolicy_envs.robosuite_task import import_robosuite

ROBOSUITE = {
    "specpolicy/Lift-v0": 10,
    "specpolicy/PickPlaceCan-v0": 14,
    "specpolicy/NutAssemblySquare-v0": 14,
    "specpolicy/LiftConveyor-v0": 10,
}


def flat(observation: dict) -> np.ndarray:
    return np.concatenate([observation[key] for key in sorted(observation)])


def run(env: gymnasium.Env, seed: int, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every observation and simulator state of an episode."""
    observations, states = [flat(env.reset(seed=seed)[0])], [env.get_state()]
    for action in actions:
        observations.append(flat(env.step(action)[0]))
        states.append(env.get_state())
    return np.array(observations), np.array(states)


def random_actions(steps: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 7)).astype(np.float32)


@pytest.mark.parametrize("env_id", ROBOSUITE)
def test_the_environment_passes_gymnasiums_checks(envs, env_id):
    check_env(envs(env_id), skip_render_check=True)  # frames have a test of their own below


@pytest.mark.parametrize(("env_id", "object_size"), ROBOSUITE.items())
def test_observations_have_robomimics_keys(envs, env_id, object_size):
    env = envs(env_id)
    observation, info = env.reset(seed=0)
    sizes = {"object": object_size, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
    if env_id == "specpolicy/LiftConveyor-v0":
        sizes["cube_velocity"] = 2
    assert {key: value.shape for key, value in observation.items()} == {key: (n,) for key, n in sizes.items()}
    assert env.observation_space.contains(observation)
    assert info == {"is_success": False}
    assert env.control_hz == env.metadata["render_fps"] == 20


@pytest.mark.parametrize("env_id", ROBOSUITE)
def test_the_seed_determines_the_episode_to_the_bit(envs, env_id):
    """Also in an environment that has had other episodes: nothing may be left of them."""
    actions = random_actions(30, seed=1)
    used = envs(env_id)
    run(used, 8, random_actions(25, seed=2))
    after_others = run(used, 7, actions)
    fresh = gymnasium.make(env_id)
    in_a_new_one = run(fresh.unwrapped, 7, actions)
    fresh.close()
    for one, other in zip(after_others, in_a_new_one, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("env_id", ROBOSUITE)
def test_seeds_and_unseeded_resets_give_different_episodes(envs, env_id):
    env = envs(env_id)
    starts = [flat(env.reset(seed=seed)[0]) for seed in (0, 1)] + [flat(env.reset()[0]) for _ in range(2)]
    assert len({start.tobytes() for start in starts}) == 4


def test_the_episode_is_truncated_after_max_seconds():
    env = gymnasium.make("specpolicy/Lift-v0", max_seconds=0.35)
    env.reset(seed=0)
    endings = [env.step(np.zeros(7, np.float32))[2:4] for _ in range(7)]
    assert endings == [(False, False)] * 6 + [(False, True)]
    env.close()


@pytest.mark.parametrize("env_id", list(ROBOSUITE)[:3])
def test_robosuite_rebuilds_the_simulation_from_env_args(env_id):
    """As robomimic does it: make, load the episode's model, set a state; the observation is then the same."""
    env = gymnasium.make(env_id, canonical_quaternions=False).unwrapped  # the signs as robosuite has them
    observations, states = run(env, 3, random_actions(10, seed=3))
    env_args = json.loads(json.dumps(env.env_args()))
    assert env_args["type"] == 1
    rebuilt = import_robosuite().make(env_args["env_name"], **env_args["env_kwargs"])
    rebuilt.reset()
    rebuilt.reset_from_xml_string(env.model_xml())
    for observation, state in ((observations[0], states[0]), (observations[-1], states[-1])):
        rebuilt.sim.set_state_from_flattened(state)
        rebuilt.sim.forward()
        # Twice: robosuite computes an object's pose relative to the hand from what it cached in the last update.
        rebuilt._get_observations(force_update=True)
        raw = rebuilt._get_observations(force_update=True)
        raw["object"] = raw["object-state"]
        keys = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
        # A step leaves positions of bodies one simulation step (2 ms) behind the joints.
        np.testing.assert_allclose(flat({key: raw[key] for key in keys}), observation, atol=5e-3)


def test_gymnasium_rebuilds_the_conveyor_from_env_args(envs):
    env_args = json.loads(json.dumps(envs("specpolicy/LiftConveyor-v0").env_args()))
    assert env_args["type"] == 2
    again = gymnasium.make(env_args["env_name"], **env_args["env_kwargs"])
    assert again.unwrapped.env_args() == env_args
    again.close()


def test_bad_arguments_are_refused_in_one_line():
    with pytest.raises(ValueError, match="render_mode is None or 'rgb_array', not 'human'"):
        Lift(render_mode="human")
    with pytest.raises(ValueError, match="max_seconds must be positive"):
        Lift(max_seconds=0)
    with pytest.raises(ValueError, match="no scripted expert for 'CartPole-v1'"):
        specpolicy_envs.make_expert("CartPole-v1", seed=0)


def test_frames_show_the_scene_without_a_screen():
    env = gymnasium.make("specpolicy/Lift-v0", render_mode="rgb_array", render_size=(96, 128))
    env.reset(seed=0)
    try:
        first = env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert first.shape == (96, 128, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, env.render())
    red = (first[..., 0] > 90) & (first[..., 1] < 60)
    assert 5 < red.sum() < 500  # the cube, small and red
    for _ in range(10):
        env.step(np.array([1, 0, -1, 0, 0, 0, 1], np.float32))
    assert np.abs(env.render().astype(int) - first).max() > 50  # the arm has moved
    env.close()


def test_a_missing_opengl_library_is_an_error_only_when_rendering(monkeypatch):
    def missing(name: str):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering.importlib, "import_module", missing)
    with pytest.raises(RuntimeError, match="no OpenGL library works") as caught:
        rendering._gl_context(10, 10)
    assert "libosmesa6" in str(caught.value) and "\n" not in str(caught.value)


def test_importing_is_light_and_making_is_quiet():
    """Registering loads no simulator; robosuite's start-up noise and its MUJOCO_GL=egl do not leak out."""
    script = """
import os, sys
import gymnasium, specpolicy_envs
assert set(specpolicy_envs.TASKS) <= set(gymnasium.registry)
assert not {"mujoco", "robosuite"} & set(sys.modules), "a simulator was imported"
specpolicy_envs.make_expert("specpolicy/LiftConveyor-v0", 0)
assert not {"mujoco", "robosuite"} & set(sys.modules), "an expert imported a simulator"
gymnasium.make("specpolicy/Lift-v0").reset(seed=0)
assert "MUJOCO_GL" not in os.environ
"""
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_every_registered_task_names_its_class_and_expert():
    for name in (*specpolicy_envs.TASKS.values(), *specpolicy_envs.EXPERTS.values()):
        module, attribute = name.split(":")
        assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("env_id", ("specpolicy/PickPlaceCan-v0", "specpolicy/NutAssemblySquare-v0"))
def test_quaternions_keep_their_sign_while_the_gripper_points_down(envs, env_id):
    """robosuite's own signs flip between neighbouring steps of the same episode; canonical ones do not."""

    def flips(canonical):
        env = envs(env_id) if canonical else gymnasium.make(env_id, canonical_quaternions=False)
        expert = specpolicy_envs.make_expert(env_id, 0)
        observation, _ = env.reset(seed=5)
        rows = [observation["object"]]
        for _ in range(60):
            observation, *_ = env.step(expert.act(observation))
            rows.append(observation["object"])
        if not canonical:
            env.close()
        quaternions = np.stack(rows)[:, 3:7]
        return int(((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0).sum()), quaternions

    (none, canonical), (some, raw) = flips(True), flips(False)
    assert none == 0 and some > 0
    np.testing.assert_array_equal(np.abs(canonical), np.abs(raw))  # the same rotations


@pytest.mark.parametrize("action", (np.full(7, np.nan), np.full(7, np.inf), 0.5, np.zeros(3)), ids=str)
def test_what_is_no_action_is_refused_before_the_simulation_sees_it(envs, action):
    env = envs("specpolicy/Lift-v0")
    env.reset(seed=0)
    state = env.get_state()
    with pytest.raises(ValueError, match="the action must be 7 finite numbers"):
        env.unwrapped.step(action)
    np.testing.assert_array_equal(env.get_state(), state)


def test_a_copy_is_refused_as_it_would_observe_the_world_of_the_first(envs):
    with pytest.raises(TypeError, match="make another one and reset it with the same seed"):
        copy.deepcopy(envs("specpolicy/Lift-v0").unwrapped)
