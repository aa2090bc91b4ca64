"""The scripted experts of the robosuite tasks: they solve them, from observations alone, and recover."""

import copy

import gymnasium
import numpy as np
import pytest

import specpolicy_envs

EXPERT_TASKS = [
    "specpolicy/Lift-v0",
    "specpolicy/PickPlaceCan-v0",
    "specpolicy/NutAssemblySquare-v0",
    "specpolicy/LiftConveyor-v0",
]


def successes(env: gymnasium.Env, env_id: str, seeds: range, noise: float) -> list[bool]:
    """Which episodes end in success; `noise` is added to what is executed, as for demonstrations."""
    expert = specpolicy_envs.make_expert(env_id, seed=0)
    outcomes = []
    for seed in seeds:
        rng = np.random.default_rng(10_000 + seed)
        observation, _ = env.reset(seed=seed)
        expert.reset(seed)
        done = False
        while not done:
            action = expert.act(observation)
            assert action.shape == env.action_space.shape and np.abs(action).max() <= 1
            executed = np.clip(action + noise * rng.standard_normal(action.shape), -1, 1)
            observation, _, terminated, truncated, info = env.step(executed.astype(np.float32))
            done = terminated or truncated
            assert terminated == info["is_success"]
        outcomes.append(info["is_success"])
    return outcomes


@pytest.mark.parametrize("env_id", EXPERT_TASKS)
def test_the_expert_solves_its_task_under_noise(envs, env_id):
    assert all(successes(envs(env_id), env_id, range(500, 501 if "Lift" not in env_id else 503), noise=0.15))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", EXPERT_TASKS)
@pytest.mark.parametrize(("noise", "required"), [(0.0, 0.95), (0.15, 0.90)])
def test_the_expert_solves_a_hundred_seeds(envs, env_id, noise, required):
    assert np.mean(successes(envs(env_id), env_id, range(100), noise)) >= required


@pytest.mark.parametrize("env_id", EXPERT_TASKS)
def test_the_action_depends_on_the_observation_alone(envs, env_id):
    """The same observation again, and a copy in another expert, give the same action; it is left as it was."""
    observation, _ = envs(env_id).reset(seed=4)
    before = copy.deepcopy(observation)
    expert, other = (specpolicy_envs.make_expert(env_id, seed) for seed in (0, 1))
    first = expert.act(observation)
    np.testing.assert_array_equal(first, expert.act(observation))
    np.testing.assert_array_equal(first, other.act(before))
    for key, value in before.items():
        np.testing.assert_array_equal(value, observation[key])


def test_the_expert_goes_back_for_a_cube_it_has_lost(envs):
    """Open the hand when it has just closed on the cube: the expert must grasp again."""
    env = envs("specpolicy/Lift-v0")
    expert = specpolicy_envs.make_expert("specpolicy/Lift-v0", seed=0)
    observation, _ = env.reset(seed=2)
    closing, step = 0, 0
    done = False
    while not done:
        action = expert.act(observation)
        closing += action[-1] > 0
        if 4 < closing <= 14:
            action = np.array([0.8, 0.5, 1, 0, 0, 0, -1], np.float32)  # knocked away, hand open
            closing += action[-1] < 0
        observation, _, terminated, truncated, _ = env.step(action)
        done, step = terminated or truncated, step + 1
    assert terminated and closing > 14  # it closed a second time
