"""Whatever way an image takes to a policy, the policy sees the same picture."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy import SpecpolicyError
from specpolicy.control.gym_robot import GymRobot
from specpolicy.evaluation.recording import EpisodeRecorder, FrameRecorder
from specpolicy.images import unit_images
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.histories import read_histories, write_histories
from specpolicy.wrappers import DictObservation

SHAPE, STEPS = (3, 36, 40), 2  # of the policy's images


class Camera(gymnasium.Env):
    """Shows the pictures it is given, channels last, and where it is."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, pictures):
        self.pictures, self.shown = pictures, 0
        picture = spaces.Box(0, 255, pictures[0].shape, pictures[0].dtype.type)
        self.observation_space = spaces.Dict({"front": picture, "position": spaces.Box(-9, 9, (2,), np.float64)})

    def _seen(self):
        self.shown += 1
        return {"front": self.pictures[min(self.shown, len(self.pictures)) - 1], "position": np.zeros(2)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown = 0
        return self._seen(), {"is_success": False}

    def step(self, action):
        return self._seen(), 0.0, False, self.shown >= len(self.pictures), {"is_success": False}


@pytest.fixture(scope="module")
def policy(small_policy_config):
    torch.manual_seed(0)
    one = {"scale": [1.0], "offset": [0.0]}
    config = {
        **small_policy_config,
        "chain": {"train_steps": 2, "steps": 2},
        "observation": {"front": list(SHAPE), "position": 2},
        "vision": {"layers": 18, "keypoints": 4, "features": 4},
        "normaliser": {**small_policy_config["normaliser"], "front": one},
    }
    config["normaliser"].pop("object")
    return DiffusionPolicy.from_config(config)


def pictures(seed):
    return np.random.default_rng(seed).integers(0, 256, (STEPS, SHAPE[1], SHAPE[2], 3), np.uint8)


def condition(policy, images, position=None):
    """What the denoiser is told of a history."""
    with torch.no_grad():
        return policy.encode({"front": images, "position": np.zeros((STEPS, 2)) if position is None else position})


def from_environment(policy, shown, tmp_path):
    env = DictObservation(Camera(shown), "camera")
    frames = [env.reset()[0], env.step(np.zeros(2))[0]]
    return np.stack([frame["front"] for frame in frames])


def from_robot(policy, shown, tmp_path):
    robot = GymRobot(DictObservation(Camera(shown), "camera"))
    frames = [robot.observe()]
    robot.act(np.zeros(2))
    return np.stack([frame["front"] for frame in [*frames, robot.observe()]])


def from_recording(policy, shown, tmp_path):
    """As `specpolicy calibrate` records, writes and reads what the policy meets."""
    recorder = EpisodeRecorder.__new__(EpisodeRecorder)
    recorder.policy, recorder.env = policy, FrameRecorder(DictObservation(Camera(shown), "camera"))
    recorder.planner, recorder.max_seconds, recorder.most, recorder.encoded = Still(policy), 60.0, None, False
    write_histories(tmp_path / "seen.safetensors", recorder(0)[1])
    return read_histories(tmp_path / "seen.safetensors", policy)["front"][1]


def from_client(policy, shown, tmp_path):
    from specpolicy.serving.codec import pack, unpack
    from specpolicy.serving.protocol import read_request
    from specpolicy.serving.service import PolicyService

    service = PolicyService(policy, "ddpm")
    message = unpack(pack({"front": shown, "position": np.zeros((STEPS, 2))}))
    return read_request(message, service.shapes, STEPS).frames["front"]


class Still:
    """A planner that stays where it is."""

    n_action_steps = 4

    def __init__(self, policy):
        self.n_obs_steps = policy.n_obs_steps

    def reset(self, seed):
        pass

    def plan(self, history):
        from specpolicy.control.chunk import Chunk

        return Chunk(np.zeros((4, 2)))


FORMS = {
    "channels first": lambda shown: np.moveaxis(shown, -1, 1),
    "floats": lambda shown: (shown / 255).astype(np.float32),
    "double floats": lambda shown: shown / 255,
    "a tensor": lambda shown: torch.from_numpy(shown).movedim(-1, 1) / 255,
    "a batch": lambda shown: shown[None],
}
WAYS = {"environment": from_environment, "robot": from_robot, "recording": from_recording, "client": from_client}


@settings(max_examples=5, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_form_of_an_image_is_the_same_condition(policy, seed):
    shown = pictures(seed)
    expected = condition(policy, shown)
    for name, form in FORMS.items():
        found = condition(policy, form(shown), np.zeros((1, STEPS, 2)) if name == "a batch" else None)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)
    other = condition(policy, 255 - shown)
    assert (other - expected).abs().max() > 1e-3  # pictures matter at all


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_an_image_leads_to_the_same_condition(policy, way, seed, tmp_path):
    shown = pictures(seed)
    found = WAYS[way](policy, shown, tmp_path)
    assert found.dtype == (np.float32 if way == "client" else np.uint8)  # a server is the policy's door
    torch.testing.assert_close(condition(policy, found), condition(policy, shown), rtol=1e-4, atol=1e-5)


def test_what_has_no_known_scale_is_refused(policy):
    shown = pictures(0)
    wrong = {
        "floats of bytes": shown.astype(np.float32),
        "long": shown.astype(np.int64),
        "true and false": shown > 127,
        "below": shown / 255 - 1,
        "no number": np.full(shown.shape, np.nan),
        "infinite": np.full(shown.shape, np.inf),
    }
    for name, images in wrong.items():
        with pytest.raises(SpecpolicyError, match=r"images 'front' .*: give .*bytes \(uint8\)"):
            condition(policy, images)
            pytest.fail(name)
    # From an environment whose space holds floats of 0 to 255.
    with pytest.raises(SpecpolicyError, match=r"from 0 to 25\d"):
        condition(policy, from_environment(policy, shown.astype(np.float32), None))


@pytest.mark.parametrize("value", ([["a"]], "text", [[1, 2], [3]], None, np.zeros((STEPS, 2), complex)), ids=str)
def test_what_is_no_array_of_numbers_is_refused_by_its_name(policy, value):
    with pytest.raises(SpecpolicyError, match="'position'"):
        policy.encode({"front": pictures(0), "position": value})


def test_a_cube_has_its_channels_first():
    cube = torch.rand(3, 3, 3)
    assert torch.equal(unit_images("cube", cube, (3, 3, 3)), cube)


def test_vectors_of_bytes_are_numbers():
    """What an Atari's memory says is no picture."""
    env = Camera(pictures(0))
    env.observation_space = spaces.Dict({"memory": spaces.Box(0, 255, (128,), np.uint8)})
    wrapped = DictObservation(env, "memory")
    found = wrapped.observation({"memory": np.arange(128, dtype=np.uint8)})
    assert found["memory"].dtype == np.float32 == wrapped.observation_space["memory"].dtype
    assert found["memory"].tolist() == list(range(128))
