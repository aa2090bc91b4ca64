"""Task environments of other packages look like ours: Dict observations and info["is_success"]."""

import time
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from specpolicy.errors import SpecpolicyError
from specpolicy.tasks import control_hz, make_task_env, observation_keys


class Odd(gymnasium.Env):
    """Spaces and infos as a test wants them."""

    metadata = {"render_modes": [], "render_fps": 25}  # noqa: RUF012

    def __init__(self, observation="dict", action="box", info=None):
        box = spaces.Box(-1, 1, (3,), np.float64)
        self.observation_space = {
            "dict": spaces.Dict({"a": box, "b": box}),
            "box": box,
            "discrete": spaces.Discrete(4),
            "mixed": spaces.Dict({"a": box, "n": spaces.Discrete(4)}),
        }[observation]
        self.action_space = {"box": box, "discrete": spaces.Discrete(4)}[action]
        self.info = info or {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), self.info

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, self.info


gymnasium.register("Odd-v0", entry_point=Odd)
DRAWN = []  # what `Shared` keeps its scene in, as gym-aloha and Meta-World do


class Shared(Odd):
    """Draws its scene into a global, and looks there for it a moment later."""

    def reset(self, *, seed=None, options=None):
        DRAWN[:] = [seed]
        time.sleep(0.001)
        return {key: np.full(3, DRAWN[0] / 100) for key in ("a", "b")}, {}


gymnasium.register("Shared-v0", entry_point=Shared)


def odd(keys=None, **kwargs):
    return {"name": "gym", "id": "Odd-v0", "kwargs": kwargs, "observation_keys": keys}


def test_environments_of_several_threads_keep_their_own_scenes():
    def scenes(seeds):
        env = make_task_env({"name": "gym", "id": "Shared-v0", "kwargs": {}, "observation_keys": None})
        return [env.reset(seed=seed)[0]["a"][0] for seed in seeds]

    with ThreadPoolExecutor(4) as pool:
        parts = [range(start, 80, 4) for start in range(4)]
        for part, found in zip(parts, pool.map(scenes, parts), strict=True):
            np.testing.assert_allclose(found, [seed / 100 for seed in part], rtol=1e-6)


def test_a_box_becomes_state():
    env = make_task_env({"name": "gym", "id": "Pendulum-v1", "kwargs": {}, "observation_keys": None})
    observation, info = env.reset(seed=0)
    assert observation["state"].shape == (3,)
    assert observation["state"].dtype == np.float32
    assert env.observation_space.contains(observation)
    assert info["is_success"] is False
    assert observation_keys({"id": "Pendulum-v1"}, env) == ("state",)
    *_, info = env.step(env.action_space.sample())
    assert info["is_success"] is False
    env.close()


@pytest.mark.parametrize(
    ("info", "success"),
    [({}, False), ({"success": 1.0}, True), ({"success": 0.0}, False), ({"is_success": np.True_}, True)],
)
def test_success_is_mapped_at_reset_and_step(info, success):
    env = make_task_env(odd(info=info))
    _, at_reset = env.reset(seed=0)
    *_, at_step = env.step(np.zeros(3))
    assert at_reset["is_success"] is success
    assert at_step["is_success"] is success
    assert control_hz(env) == 25


def test_dict_observations_keep_their_keys():
    env = make_task_env(odd(keys=["b"]))
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"a", "b"}
    assert observation["a"].dtype == np.float32
    assert observation_keys(odd(keys=["b"]), env) == ("b",)
    assert observation_keys(odd(), env) == ("a", "b")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (odd(action="discrete"), "action space is Discrete"),
        (odd(observation="discrete"), "the observation is Discrete"),
        (odd(observation="mixed"), "the observation 'n' is Discrete"),
        (odd(keys=["aa"]), "no observation 'aa'; did you mean 'a'"),
        (odd(colour="red"), "unexpected keyword argument 'colour'"),
        ({"id": "Pendulumm-v1"}, "Pendulumm"),
        ({"id": "specpolicy/Lifft-v0"}, "Lifft"),
    ],
)
def test_what_a_policy_cannot_use_is_refused_in_one_line(task, words):
    with pytest.raises(SpecpolicyError, match=words) as caught:
        make_task_env(task)
    assert "\n" not in str(caught.value)


def test_arguments_of_the_call_win_over_the_tasks():
    env = make_task_env(odd(observation="dict"), observation="box")
    assert list(env.observation_space.spaces) == ["state"]


def test_a_metaworld_task_works_as_any_gymnasium_id():
    pytest.importorskip("metaworld", reason="needs specpolicy[metaworld]")
    from metaworld.policies import ENV_POLICY_MAP

    task = {"name": "gym", "id": "Meta-World/MT1", "kwargs": {"env_name": "reach-v3", "seed": 0}}
    env = make_task_env(task)
    expert = ENV_POLICY_MAP["reach-v3"]()
    observation, info = env.reset(seed=0)
    assert observation["state"].shape == (39,)
    assert info["is_success"] is False
    for _ in range(150):
        action = np.clip(expert.get_action(observation["state"]), -1, 1).astype(np.float32)
        observation, _, _, _, info = env.step(action)
        if info["is_success"]:
            break
    assert info["is_success"] is True
    env.close()


def test_a_seed_fixes_the_scene_of_a_metaworld_task():
    """Whatever was played before, and in another environment; its own `reset` ignores seeds."""
    pytest.importorskip("metaworld", reason="needs specpolicy[metaworld]")
    task = {"name": "gym", "id": "Meta-World/MT1", "kwargs": {"env_name": "reach-v3"}}
    env, other = make_task_env(task), make_task_env(task)

    def begin(env, seed):
        observation, _ = env.reset(seed=seed)
        for _ in range(3):
            observation, *_ = env.step(np.array([0.1, 0.2, -0.1, 0.0], np.float32))
        return observation["state"].tobytes()

    states = {seed: begin(env, seed) for seed in range(6)}
    assert len(set(states.values())) >= 4  # goals are drawn from fifty
    assert all(begin(env, seed) == states[seed] for seed in (5, 5, 0))
    assert begin(other, 3) == states[3]
    env.close()
    other.close()
