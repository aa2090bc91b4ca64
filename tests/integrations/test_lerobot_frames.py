"""What LeRobot's preprocessing makes of an environment's frame, an image policy of LeRobot sees here to the bit.

The reference computes as huggingface/lerobot does: src/lerobot/envs/utils.py (preprocess_observation: bytes to floats,
channels first), src/lerobot/processor/normalize_processor.py (_apply_transform) and
src/lerobot/policies/diffusion/modeling_diffusion.py (DiffusionRgbEncoder: resize, then the crop of an evaluation).
"""

import json

import gymnasium
import numpy as np
import pytest
import torch
from foreign_files import FRAMES, lerobot_unet_names, unet, write_lerobot
from gymnasium import spaces
from originals_images import torchvision, with_group_norm
from safetensors.torch import save_file
from test_lerobot import CONFIG, feature

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.cli.configuration import load_option
from specpolicy.networks.resnet import ResNet
from specpolicy.tasks import make_task_env

STATE, EPSILON, KEYPOINTS = "observation.state", 1e-8, 4
TASKS = {  # the camera, the size of its image, state and action
    "gym_pusht": ("observation.image", (96, 96), 2, 2),
    "gym_aloha": ("observation.images.top", (480, 640), 14, 14),
}
SEEN = {  # fields of config.json
    "whole": {},
    "crop": {"crop_shape": [84, 83]},
    "resize": {"resize_shape": [61, 70]},
    "resize and crop": {"resize_shape": [61, 70], "crop_ratio": 0.9},
}


class Aloha(gymnasium.Env):
    """gym-aloha's spaces, without its simulator."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012
    action_space = spaces.Box(-1, 1, (14,), np.float32)
    observation_space = spaces.Dict(
        {
            "pixels": spaces.Dict({"top": spaces.Box(0, 255, (480, 640, 3), np.uint8)}),
            "agent_pos": spaces.Box(-1000.0, 1000.0, (14,), np.float64),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


gymnasium.register("AlohaSpaces-v0", entry_point=Aloha)


def task_of(name):
    if name == "gym_pusht":
        pytest.importorskip("gym_pusht", reason="needs specpolicy[pusht]")
    task = dict(load_option("task", name))
    return task if name == "gym_pusht" else {**task, "id": "AlohaSpaces-v0", "kwargs": {}}


def statistics_of(name, seed=0):
    """As a data set has them: odd numbers in float32."""
    camera, _, state, action = TASKS[name]
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    low = 300 * draw(state) - 100
    return {
        camera: {"mean": draw(3, 1, 1), "std": 0.1 + draw(3, 1, 1)},
        STATE: {"min": low, "max": low + 300 * draw(state)},
        "action": {"min": 100 * draw(action), "max": 400 + 100 * draw(action)},
    }


def write_policy(directory, name, seen, visual="MEAN_STD"):
    """A policy with random weights, as LeRobot 0.4 and later save one."""
    camera, size, state, action = TASKS[name]
    torch.manual_seed(0)
    backbone = with_group_norm(torch.nn.Sequential(*list(torchvision.models.resnet18().children())[:-2]))
    pool, out = torch.nn.Conv2d(512, KEYPOINTS, 1), torch.nn.Linear(2 * KEYPOINTS, 2 * KEYPOINTS)
    weights = {}
    for part, module in (("backbone", backbone), ("pool.nets", pool), ("out", out)):
        weights |= {f"diffusion.rgb_encoder.{part}.{key}": value for key, value in module.state_dict().items()}
    shape = torch.Size(cropped(torch.zeros(1, 3, *size), seen).shape[-2:])
    height, width = (ResNet.output_size(side) for side in shape)
    weights["diffusion.rgb_encoder.pool.pos_grid"] = torch.zeros(height * width, 2)
    network = unet(action, global_cond_dim=FRAMES * (state + 2 * KEYPOINTS))
    weights |= {f"diffusion.unet.{key}": value for key, value in lerobot_unet_names(network.state_dict()).items()}
    features = {camera: feature("VISUAL", 3, *size), STATE: feature("STATE", state)}
    actions = {"action": feature("ACTION", action)}
    modes = {"VISUAL": visual, "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    config = {**CONFIG, "input_features": features, "output_features": actions, "num_train_timesteps": 4}
    write_lerobot(directory, {**config, "normalization_mapping": modes, **seen}, weights)
    tensors = {f"{key}.{kind}": value for key, two in statistics_of(name).items() for kind, value in two.items()}
    for file, step in (
        ("policy_preprocessor", "normalizer_processor"),
        ("policy_postprocessor", "unnormalizer_processor"),
    ):
        settings = {"eps": EPSILON, "features": {**features, **actions}, "norm_map": modes}
        state_file = f"{file}_step_0_{step}.safetensors"
        steps = [{"registry_name": step, "config": settings, "state_file": state_file}]
        (directory / f"{file}.json").write_text(json.dumps({"name": file, "steps": steps}))
        save_file(tensors, directory / state_file)
    return directory


def cropped(images, seen):
    """DiffusionRgbEncoder before its backbone, in an evaluation."""
    crop = seen.get("crop_shape")
    if resize := seen.get("resize_shape"):
        images = torchvision.transforms.Resize(resize)(images)
        ratio = seen.get("crop_ratio", 1.0)
        crop = [int(side * ratio) for side in resize] if ratio < 1 else None
    return images if crop is None else torchvision.transforms.CenterCrop(crop)(images)


def seen_by_lerobot(raw, name, seen, visual):
    """What its backbone gets of an observation of the environment, and the normalised state."""
    camera, *_ = TASKS[name]
    pixels = raw["pixels"]["top"] if isinstance(raw["pixels"], dict) else raw["pixels"]
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).contiguous().type(torch.float32)
    image /= 255
    statistics = statistics_of(name)
    if visual == "MEAN_STD":
        image = (image - statistics[camera]["mean"]) / (statistics[camera]["std"] + EPSILON)
    state = torch.from_numpy(raw["agent_pos"]).float()
    low, high = statistics[STATE]["min"], statistics[STATE]["max"]
    return cropped(image, seen)[0], 2 * (state - low) / (high - low) - 1


@pytest.fixture
def looked_at(monkeypatch):
    """All that backbones get."""
    images, forward = [], ResNet.forward
    monkeypatch.setattr(ResNet, "forward", lambda self, x: images.append(x.clone()) or forward(self, x))
    return images


def raw_observations(env, count, seed):
    """What the environment itself observed in `count` steps, beside what the task makes of it."""
    raw, bottom = [], env.unwrapped
    reset, step = bottom.reset, bottom.step
    bottom.reset = lambda **given: raw.append((found := reset(**given))[0]) or found
    bottom.step = lambda action: raw.append((found := step(action))[0]) or found
    env.action_space.seed(seed)
    observed = [env.reset(seed=seed)[0]]
    while len(observed) < count:
        observed.append(env.step(env.action_space.sample())[0])
    return raw, observed


@pytest.mark.parametrize("visual", ("MEAN_STD", "IDENTITY"))
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("name", TASKS)
def test_a_frame_is_lerobots_to_the_bit(name, seen, visual, looked_at, tmp_path):
    seen, (camera, _, size, _) = SEEN[seen], TASKS[name]
    policy = load_policy(write_policy(tmp_path / "policy", name, seen, visual))
    raw, observed = raw_observations(make_task_env(task_of(name)), FRAMES, seed=5)
    expected = [seen_by_lerobot(one, name, seen, visual) for one in raw]
    images, states = (torch.stack(parts) for parts in zip(*expected, strict=True))
    for candidate in (policy, load_policy(policy.save(tmp_path / "converted"))):
        looked_at.clear()
        with torch.no_grad():
            condition = candidate.encode({key: np.stack([one[key] for one in observed]) for key in (camera, STATE)})
        assert torch.equal(torch.cat(looked_at), images)
        assert torch.equal(condition.reshape(FRAMES, -1)[:, :size], states)
    other = seen_by_lerobot({**raw[0], "pixels": raw[1]["pixels"]}, name, seen, visual)[0]
    assert not torch.equal(other, images[0])  # frames differ at all


def test_actions_are_lerobots_to_the_bit(tmp_path):
    policy = load_policy(write_policy(tmp_path / "policy", "gym_pusht", {}))
    low, high = (statistics_of("gym_pusht")["action"][kind] for kind in ("min", "max"))
    chunk = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(policy.normaliser.unnormalise("action", chunk), (chunk + 1) / 2 * (high - low) + low)


def test_evaluate_shows_it_the_same_frames(looked_at, tmp_path, capsys):
    """`specpolicy evaluate task=gym_pusht policy=<directory of LeRobot>`, from the command line to the backbone."""
    pytest.importorskip("gym_pusht", reason="needs specpolicy[pusht]")
    directory, output = write_policy(tmp_path / "policy", "gym_pusht", SEEN["crop"]), tmp_path / "out"
    options = ["samplers=[ddpm]", "episodes=1", "max_seconds=1.0", "workers=0", "videos=1", "seed=7", "engine=eager"]
    assert main(["evaluate", "task=gym_pusht", f"policy={directory}", f"output={output}", *options]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["conditions"][0]["calls"] == 4 and summary["conditions"][0]["length"]["estimate"] == 10
    assert (output / summary["conditions"][0]["videos"][0]["path"]).stat().st_size > 0
    raw, _ = raw_observations(make_task_env(task_of("gym_pusht")), 1, seed=7)
    expected, _ = seen_by_lerobot(raw[0], "gym_pusht", SEEN["crop"], "MEAN_STD")
    frames = [frame for batch in looked_at for frame in batch]
    assert any(torch.equal(frame, expected) for frame in frames)  # a frame seen twice may be encoded once
    other, _ = raw_observations(make_task_env(task_of("gym_pusht")), 1, seed=8)
    other, _ = seen_by_lerobot(other[0], "gym_pusht", SEEN["crop"], "MEAN_STD")
    assert not any(torch.equal(frame, other) for frame in frames)


def test_without_its_names_the_policy_says_which_it_needs(tmp_path, capsys):
    pytest.importorskip("gym_pusht", reason="needs specpolicy[pusht]")
    directory = write_policy(tmp_path / "policy", "gym_pusht", SEEN["crop"])
    task = ["task=gym", "task.id=gym_pusht:gym_pusht/PushT-v0", "+task.kwargs.obs_type=pixels_agent_pos"]
    names = "task.rename={observation.images.front:pixels,observation.state:agent_pos}"
    output = [f"output={tmp_path / 'out'}", "episodes=1", "workers=0", "engine=eager"]
    assert main(["evaluate", *task, names, f"policy={directory}", *output]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "observes 'observation.image'" in line and "it has observation.images.front, observation.state" in line
    assert "task.rename={observation.image:...}" in line and not (tmp_path / "out" / "summary.json").exists()
