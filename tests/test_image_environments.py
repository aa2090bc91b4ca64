"""Environments of other packages that see: nested observations, names for the policy, layouts and kinds of images."""

import ctypes.util
import json
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from omegaconf import OmegaConf

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.cli.configuration import load_option
from specpolicy.data.dataset import read_data
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.planners import check_shapes_fit
from specpolicy.tasks import control_hz, kept_task, make_task_env

STATE, IMAGE, TOP = "observation.state", "observation.image", "observation.images.top"
LAST, FIRST = (48, 64, 3), (3, 48, 64)
BYTES, UNIT = spaces.Box(0, 255, LAST, np.uint8), spaces.Box(0.0, 1.0, LAST, np.float32)


class Seeing(gymnasium.Env):
    """Shows samples of a space, or what `shown` makes of them. By default the space of gym-aloha, smaller."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012
    action_space = spaces.Box(-1, 1, (14,), np.float32)

    def __init__(self, image=BYTES, space=None, shown=lambda image: image):
        position = spaces.Box(-1000.0, 1000.0, (14,), np.float64)
        nested = spaces.Dict({"pixels": spaces.Dict({"top": image}), "agent_pos": position})
        self.observation_space = nested if space is None else space
        self.shown = shown

    def _seen(self):
        self.sample = self.observation_space.sample()
        if "pixels" not in self.sample or "top" not in self.sample["pixels"]:
            return self.sample
        return {**self.sample, "pixels": {"top": self.shown(self.sample["pixels"]["top"])}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self._seen(), {}

    def step(self, action):
        return self._seen(), 0.0, False, False, {}


gymnasium.register("Seeing-v0", entry_point=Seeing)


def seeing(rename=None, keys=None, **kwargs):
    return {"id": "Seeing-v0", "kwargs": kwargs, "observation_keys": keys, "rename": rename}


def shipped(name):
    """A task of configs/task as a verb gives it."""
    return OmegaConf.to_container(load_option("task", name))


def first(task):
    env = make_task_env(task)
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    return observation, env


def test_nested_observations_have_dotted_names():
    observation, env = first(seeing())
    assert set(observation) == {"agent_pos", "pixels.top"}
    assert observation["pixels.top"].dtype == np.uint8 and observation["agent_pos"].dtype == np.float32
    assert np.array_equal(observation["pixels.top"], env.unwrapped.sample["pixels"]["top"])
    assert first(seeing(keys=["pixels.top"]))[0].keys() == {"agent_pos", "pixels.top"}


def test_gym_aloha_by_its_configuration():
    """On the space that gym-aloha has, whether it is installed or not."""
    rename = shipped("gym_aloha")["rename"]
    observation, env = first(seeing(rename, image=spaces.Box(0, 255, (480, 640, 3), np.uint8)))
    assert {key: value.shape for key, value in observation.items()} == {TOP: (480, 640, 3), STATE: (14,)}
    again, *_ = env.step(np.zeros(14))
    assert np.array_equal(again[TOP], env.unwrapped.sample["pixels"]["top"]) and not np.array_equal(
        *map(bytes, [again[TOP], observation[TOP]])
    )


def test_gym_aloha_itself(monkeypatch):
    pytest.importorskip("gym_aloha", reason="needs specpolicy[aloha]")
    if not ctypes.util.find_library("EGL"):
        pytest.skip("needs EGL")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    observation, env = first(shipped("gym_aloha"))
    assert {key: value.shape for key, value in observation.items()} == {TOP: (480, 640, 3), STATE: (14,)}
    assert np.array_equal(observation[TOP], env.unwrapped.render()) and observation[TOP].std() > 10
    assert control_hz(env) == 50


def test_gym_pusht_by_its_configuration():
    pytest.importorskip("gym_pusht", reason="needs specpolicy[pusht]")
    observation, env = first(shipped("gym_pusht"))
    assert observation[IMAGE].shape == (96, 96, 3) and observation[IMAGE].dtype == np.uint8
    assert np.array_equal(observation[STATE], np.float32(env.unwrapped.agent.position))
    assert control_hz(env) == 10  # and not its physics step `dt`
    theirs = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", disable_env_checker=True)
    plain, _ = theirs.reset(seed=3)
    assert np.array_equal(observation[IMAGE], plain["pixels"])
    assert not np.array_equal(env.reset(seed=4)[0][IMAGE], plain["pixels"])


def test_an_observation_may_have_two_names_and_names_may_change_places():
    observation, _ = first(seeing({"a": "pixels.top", "b": "pixels.top"}))
    assert observation.keys() == {"agent_pos", "a", "b"} and np.array_equal(observation["a"], observation["b"])
    observation, _ = first(seeing({"agent_pos": "pixels.top", "pixels.top": "agent_pos"}))
    assert observation["agent_pos"].shape == LAST and observation["pixels.top"].shape == (14,)


@pytest.mark.parametrize("last", (BYTES, UNIT), ids=("bytes", "floats"))
def test_channels_that_come_first_come_last(last):
    turned = spaces.Box(np.moveaxis(last.low, -1, 0), np.moveaxis(last.high, -1, 0), dtype=last.dtype.type)
    expected, _ = first(seeing(image=last))
    found, env = first(seeing(image=turned))
    assert found["pixels.top"].shape == LAST and found["pixels.top"].dtype == expected["pixels.top"].dtype
    assert np.array_equal(found["pixels.top"], np.moveaxis(env.unwrapped.sample["pixels"]["top"], 0, -1))
    assert found["pixels.top"].flags.c_contiguous
    check_shapes_fit({"pixels.top": FIRST, "agent_pos": (14,)}, 14, env, "Seeing-v0")


@pytest.mark.parametrize(
    "image",
    (spaces.Box(-2.0, 2.0, (3, 5, 7), np.float32), spaces.Box(0, 255, (3, 5, 4), np.uint8)),
    ids=("numbers that are no image", "both ends may be channels"),
)
def test_what_may_be_no_image_with_channels_first_stays(image):
    found, env = first(seeing(image=image))
    assert np.array_equal(found["pixels.top"], env.unwrapped.sample["pixels"]["top"])


@pytest.mark.parametrize(
    "task, words",
    (
        (seeing({IMAGE: "pixel.top"}), "has no observation 'pixel.top'; did you mean 'pixels.top'?; it has agent_pos"),
        (seeing({IMAGE: "zebra"}), "has no observation 'zebra'; it has agent_pos, pixels.top"),
        (seeing({IMAGE: "top"}), "has no observation 'top'; it is nested: write pixels.top"),
        (seeing({IMAGE: "pixels"}), "has no observation 'pixels'; it is nested: write pixels.top"),
        (seeing({"agent_pos": STATE}), f"has no observation '{STATE}'; write the policy's name first"),
        (seeing({"agent_pos": "pixels.top"}), "has another observation of the name 'agent_pos'; rename that one"),
        (seeing({IMAGE: 3}), "expected {the policy's name: the environment's}"),
        (seeing("pixels"), "task.rename=pixels: expected {the policy's name"),
        (seeing(keys=["top"]), "no observation 'top'; it is nested: write pixels.top"),
        (seeing({IMAGE: "pixels.top"}, keys=["pixels.top"]), f"no observation 'pixels.top'; it has agent_pos, {IMAGE}"),
        (seeing(space=spaces.Dict({"a.b": BYTES, "a": spaces.Dict({"b": BYTES})})), "would be called 'a.b'"),
        (seeing(space=spaces.Dict({"a": spaces.Dict({"n": spaces.Discrete(3)})})), "the observation 'a.n' is Discrete"),
        ({"id": "specpolicy/PushT-v0", "rename": {"a": "agent_pos"}}, "whose observations keep their names"),
    ),
)
def test_names_that_cannot_be_given_are_one_line(task, words):
    with pytest.raises(SpecpolicyError) as caught:
        make_task_env(task)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image, axes, words",
    (
        (BYTES, (2, 0, 1), "the channels come first where the space has them last"),
        (spaces.Box(0, 255, FIRST, np.uint8), (1, 2, 0), "the channels come last where the space has them first"),
        (BYTES, (1, 0, 2), f"have shape (64, 48, 3), its observation space says {LAST}"),
    ),
    ids=("first", "last", "turned"),
)
def test_images_of_another_shape_than_was_promised_are_one_line(image, axes, words):
    env = make_task_env(seeing(image=image, shown=lambda shown: shown.transpose(axes)))
    with pytest.raises(SpecpolicyError) as caught:
        env.reset(seed=0)
    assert words in str(caught.value) and "'pixels.top'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("low, high, fits", ((0.0, 255.0, False), (-1.0, 1.0, False), (0.0, 1.0, True)))
def test_floats_outside_the_unit_range_are_refused_before_an_episode(low, high, fits):
    _, env = first(seeing(image=spaces.Box(low, high, LAST, np.float32)))
    if fits:
        check_shapes_fit({"pixels.top": FIRST}, None, env, "Seeing-v0")
        return
    with pytest.raises(SpecpolicyError, match=f"'pixels.top' of Seeing-v0 hold numbers from {low:g} to {high:g}"):
        check_shapes_fit({"pixels.top": FIRST}, None, env, "Seeing-v0")
    check_shapes_fit(
        {"agent_pos": (14,)}, None, env, "Seeing-v0"
    )  # of what a policy does not look at, nothing is asked


def test_a_missing_observation_says_how_to_name_one():
    _, env = first(seeing())
    with pytest.raises(
        SpecpolicyError, match=r"observes 'observation.image'.*it has agent_pos, pixels.top.*task.rename"
    ):
        check_shapes_fit({IMAGE: FIRST}, None, env, "Seeing-v0")


def test_a_task_without_names_is_kept_as_before():
    assert kept_task({"id": "x", "rename": None}) == kept_task({"id": "x", "rename": {}}) == {"id": "x"}
    assert kept_task({"id": "x", "rename": {"a": "b"}}) == {"id": "x", "rename": {"a": "b"}}


@pytest.mark.parametrize("package, extra", (("gym_pusht", "pusht"), ("gym_aloha", "aloha")))
def test_a_missing_package_is_named_with_its_extra(package, extra, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["collect", f"task={package}", "expert=os:getcwd", "workers=0"]) == 2
    assert f"pip install 'specpolicy[{extra}]'" in capsys.readouterr().err


class Wanderer:
    """An expert of gym-pusht that is none."""

    def reset(self, seed):
        self.random = np.random.default_rng(seed)

    def act(self, observation):
        return np.float32(observation[STATE] + self.random.uniform(-20, 20, 2))


def test_from_demonstrations_of_gym_pusht_to_its_evaluation(tmp_path, monkeypatch, capsys):
    """LeRobot's names in the data set, the policy and the environment; the images are the environment's own."""
    pusht = pytest.importorskip("gym_pusht.envs.pusht", reason="needs specpolicy[pusht]").PushTEnv
    pytest.importorskip("pyarrow", reason="needs specpolicy[data]")
    rendered, observe = set(), pusht.get_obs
    monkeypatch.setattr(pusht, "get_obs", lambda env: rendered.add((seen := observe(env))["pixels"].tobytes()) or seen)
    module = type(sys)("wanderer_of_this_test")
    module.make = lambda task, seed: Wanderer()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    data, policy = tmp_path / "data", tmp_path / "policy"
    collect = [f"expert={module.__name__}:make", "episodes=2", "keep_failures=true", "max_seconds=1.5", "workers=0"]
    assert main(["collect", "task=gym_pusht", *collect, "format=lerobot", f"output={data}"]) == 0
    features = json.loads((data / "meta" / "info.json").read_text())["features"]
    assert features[IMAGE]["shape"] == [96, 96, 3] and features[STATE]["shape"] == [2]
    assert {key for key in features if key.startswith("observation")} == {IMAGE, STATE}

    images = next(iter(read_data(data, [STATE, IMAGE]).episodes.values())).observation[IMAGE]
    assert images[:].shape == (15, 96, 96, 3) and {image.tobytes() for image in images[:]} <= rendered

    train = ["policy=unet_image", "policy.vision.kind=small", "policy.horizon=16", "steps=1", "batch_size=2"]
    assert main(["train", "task=gym_pusht", *train, f"data={data}", f"output={policy}"]) == 0
    evaluate = ["samplers=[ddim-2]", "episodes=1", "max_seconds=0.5", "workers=0", "videos=0", "engine=eager"]
    out = tmp_path / "out"
    assert main(["evaluate", "task=gym_pusht", f"policy={policy}", *evaluate, f"output={out}"]) == 0
    assert load_policy(policy).observation_keys == (STATE, IMAGE)
    assert json.loads((out / "summary.json").read_text())["conditions"][0]["calls"] == 2
