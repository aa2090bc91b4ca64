"""Policies that see: our encoders compute what torchvision's and robomimic's modules do, in each project's layout."""

import pytest
import torch
from foreign_files import (
    DDPM,
    FRAMES,
    SIZES,
    lerobot_unet_names,
    normaliser_weights,
    robomimic_cfg,
    transformer,
    unet,
    write_lerobot,
    write_robomimic,
    write_workspace,
)
from originals import conditional_sample, make_scheduler
from originals_images import CropRandomizer, observation_encoder, shaken, torchvision, with_group_norm
from test_lerobot import CONFIG as LEROBOT
from test_lerobot import feature

from specpolicy import SpecpolicyError, load_policy
from specpolicy.networks import ResNetOptions
from specpolicy.networks.resnet import ResNet
from specpolicy.networks.vision import VisionEncoder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchvision.models._utils")

SHAPES = {"front": [3, 45, 52], "position": [3], "wrist": [3, 40, 40]}
ACTION = 2


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layers", (18, 34))
@pytest.mark.parametrize("group_norm", (False, True))
def test_the_backbone_is_that_of_torchvision(layers, group_norm):
    theirs = torch.nn.Sequential(*list(getattr(torchvision.models, f"resnet{layers}")().children())[:-2])
    shaken(with_group_norm(theirs) if group_norm else theirs)
    ours = ResNet(3, layers, group_norm).eval()
    ours.load_state_dict(theirs.state_dict())
    x = images(2, 3, 70, 33)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
        assert ours(x).shape[-2:] == (ResNet.output_size(70), ResNet.output_size(33))


def test_resizing_is_that_of_torchvision():
    options = ResNetOptions(resize=(33, 40), crop=(32, 31))
    encoder = VisionEncoder((3, 48, 64), options)
    theirs = torchvision.transforms.Compose(
        [torchvision.transforms.Resize((33, 40)), torchvision.transforms.CenterCrop((32, 31))]
    )
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    encoder(images(2, 3, 48, 64))
    torch.testing.assert_close(seen[0], theirs(images(2, 3, 48, 64)))


def hybrid_cfg(name, crop, **policy):
    meta = {key: {"shape": shape, "type": "rgb" if len(shape) == 3 else "low_dim"} for key, shape in SHAPES.items()}
    return {
        "policy": {
            "_target_": f"diffusion_policy.policy.module.{name}",
            "shape_meta": {"obs": meta, "action": {"shape": [ACTION]}},
            "noise_scheduler": dict(DDPM),
            "horizon": 8,
            "n_obs_steps": FRAMES,
            "n_action_steps": 4,
            "num_inference_steps": 20,
            "crop_shape": crop,
            "eval_fixed_crop": True,
            **policy,
        },
        "training": {"use_ema": False},
    }


@pytest.mark.parametrize(
    "kind, group_norm, inpaint", (("unet", True, False), ("unet", False, True), ("transformer", True, False))
)
def test_hybrid_policies_of_diffusion_policy(kind, group_norm, inpaint, tmp_path):
    encoder = observation_encoder(SHAPES, group_norm, crop=(36, 37))
    feature_dim = 2 * 16 + 3
    width = ACTION + feature_dim if inpaint else ACTION
    if kind == "unet":
        network = unet(width, global_cond_dim=None if inpaint else FRAMES * feature_dim)
        cfg = hybrid_cfg("DiffusionUnetHybridImagePolicy", [36, 37], obs_as_global_cond=not inpaint, **SIZES)
    else:
        sizes = {"n_layer": 1, "n_head": 2, "n_emb": 16}
        network = transformer(ACTION, feature_dim, **sizes)
        cfg = hybrid_cfg("DiffusionTransformerHybridImagePolicy", [36, 37], **sizes)
    statistics = normaliser_weights({"front": 1, "wrist": 1, "position": 3, "action": ACTION})
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    weights |= {f"obs_encoder.{name}": value for name, value in encoder.state_dict().items()} | statistics
    path = write_workspace(tmp_path / "latest.ckpt", cfg, weights)

    batch = 2
    observation = {key: images(batch, FRAMES, *shape, seed=len(key)) for key, shape in SHAPES.items()}
    normalised = {
        key: (value * statistics[f"normalizer.params_dict.{key}.scale"])
        + statistics[f"normalizer.params_dict.{key}.offset"]
        for key, value in observation.items()
    }
    with torch.no_grad():
        frames = encoder({key: value.flatten(end_dim=1) for key, value in normalised.items()}).unflatten(0, (batch, -1))
        data, known, condition = torch.zeros(batch, 8, width), torch.zeros(batch, 8, width, dtype=torch.bool), {}
        if inpaint:
            data[:, :FRAMES, ACTION:], known[:, :FRAMES, ACTION:] = frames, True
        else:
            condition = {"global_cond": frames.flatten(1)} if kind == "unet" else {"cond": frames}
        torch.manual_seed(5)
        scheduler = make_scheduler(cfg["policy"]["noise_scheduler"])
        chunk = conditional_sample(network, scheduler, 20, data, known, **condition)[..., :ACTION]
    scale, offset = (statistics[f"normalizer.params_dict.action.{name}"] for name in ("scale", "offset"))

    policy = load_policy(path)
    assert policy.encoder.shapes == {"front": (3, 45, 52), "position": 3, "wrist": (3, 40, 40)}
    for candidate in (policy, load_policy(policy.save(tmp_path / "converted"))):
        torch.manual_seed(5)
        out = candidate.predict(observation, "ddpm")
        torch.testing.assert_close(out.actions, (chunk - offset) / scale, rtol=5e-5, atol=5e-5)


def test_bytes_and_channels_last_are_the_same_image(tmp_path):
    encoder = observation_encoder({"front": [3, 40, 44]})
    network = unet(ACTION, global_cond_dim=FRAMES * 16)
    nets = {f"noise_pred_net.{name}": value for name, value in network.state_dict().items()}
    nets |= {f"obs_encoder.nets.obs.{name}": value for name, value in encoder.state_dict().items()}
    cfg = robomimic_cfg({"front": [3, 40, 44]})
    policy = load_policy(write_robomimic(tmp_path / "model.pth", cfg, nets, {"front": [3, 40, 44]}))
    raw = (255 * images(FRAMES, 40, 44, 3)).to(torch.uint8)
    floats = raw.movedim(-1, 1) / 255
    torch.testing.assert_close(policy.encode({"front": raw}), policy.encode({"front": floats}))
    torch.testing.assert_close(policy.encode({"front": raw.numpy()[None]}), policy.encode({"front": floats}))
    with pytest.raises(SpecpolicyError, match=r"observation 'front' has shape .*: expected \(2, 3, 40, 44\)"):
        policy.encode({"front": floats[..., :39]})


@pytest.mark.parametrize("crop", (None, (36, 37)))
def test_robomimic_policies_with_images(crop, tmp_path):
    encoder = observation_encoder(SHAPES, crop=crop, crop_class=CropRandomizer)
    network = unet(ACTION, global_cond_dim=FRAMES * (2 * 16 + 3))
    nets = {f"noise_pred_net.{name}": value for name, value in network.state_dict().items()}
    nets |= {f"obs_encoder.nets.obs.{name}": value for name, value in encoder.state_dict().items()}
    randomiser = {}
    if crop:
        randomiser = {
            "obs_randomizer_class": "CropRandomizer",
            "obs_randomizer_kwargs": {"crop_height": crop[0], "crop_width": crop[1], "num_crops": 1, "pos_enc": False},
        }
    path = write_robomimic(tmp_path / "model.pth", robomimic_cfg(SHAPES, **randomiser), nets, SHAPES)
    observation = {key: images(2, FRAMES, *shape, seed=len(key)) for key, shape in SHAPES.items()}
    with torch.no_grad():
        expected = encoder({key: value.flatten(end_dim=1) for key, value in observation.items()}).reshape(2, -1)
        torch.testing.assert_close(load_policy(path).encode(observation), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shared, group_norm", ((True, True), (False, False)))
def test_lerobot_policies_with_images(shared, group_norm, tmp_path):
    """Two cameras between the state and the state of the environment; a crop with an odd margin."""
    size, crop, keypoints = (3, 45, 52), (36, 37), 8
    cameras, encoders, tensors = ["observation.images.a", "observation.images.b"], [], {}
    for index in range(1 if shared else 2):
        backbone = torch.nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
        backbone = shaken(with_group_norm(backbone) if group_norm else backbone, seed=index)
        pool, out = torch.nn.Conv2d(512, keypoints, 1), torch.nn.Linear(2 * keypoints, 2 * keypoints)
        encoders.append((backbone, pool, out))
        prefix = "diffusion.rgb_encoder." + ("" if shared else f"{index}.")
        for name, module in (("backbone", backbone), ("pool.nets", pool), ("out", out)):
            tensors |= {f"{prefix}{name}.{key}": value for key, value in module.state_dict().items()}
        tensors[f"{prefix}pool.pos_grid"] = torch.zeros(4, 2)
    network = unet(ACTION, global_cond_dim=FRAMES * (3 + 4 * keypoints + 4))
    tensors |= {f"diffusion.unet.{name}": value for name, value in lerobot_unet_names(network.state_dict()).items()}
    config = {**LEROBOT, "crop_shape": crop, "use_separate_rgb_encoder_per_camera": not shared}
    config["input_features"] = {
        **dict.fromkeys(cameras, feature("VISUAL", *size)),
        "observation.environment_state": feature("ENV", 4),
        "observation.state": feature("STATE", 3),
    }
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.5
    ranges = {"min": torch.full((3,), -1.0), "max": torch.ones(3)}
    buffers = {("normalize_inputs", camera): {"mean": mean, "std": std} for camera in cameras}
    buffers[("normalize_inputs", "observation.state")] = ranges
    buffers[("unnormalize_outputs", "action")] = {"min": -torch.ones(ACTION), "max": torch.ones(ACTION)}
    for crop_shape in ([30, 30], [33, 65]):  # the positions of the keypoints are among the weights
        with pytest.raises(SpecpolicyError, match=r"pool\.pos_grid"):
            load_policy(write_lerobot(tmp_path / "other", {**config, "crop_shape": crop_shape}, tensors, buffers))
    policy = load_policy(write_lerobot(tmp_path, config, tensors, buffers))
    assert policy.observation_keys == ("observation.state", *cameras, "observation.environment_state")

    observation = {camera: images(2, FRAMES, *size, seed=index) for index, camera in enumerate(cameras)}
    observation |= {"observation.state": images(2, FRAMES, 3), "observation.environment_state": images(2, FRAMES, 4)}
    features = []
    with torch.no_grad():
        for camera, (backbone, pool, out) in zip(cameras, encoders * 2, strict=False):
            x = torchvision.transforms.functional.center_crop((observation[camera] - mean) / std, list(crop))
            maps = pool(backbone(x.flatten(end_dim=1)))
            weight = maps.flatten(2).softmax(-1).unflatten(-1, maps.shape[-2:])
            columns, rows = (torch.linspace(-1, 1, side) for side in reversed(maps.shape[-2:]))
            xy = torch.stack([(weight.sum(-2) * columns).sum(-1), (weight.sum(-1) * rows).sum(-1)], dim=-1)
            features.append(torch.relu(out(xy.flatten(1))).unflatten(0, (2, FRAMES)))
        frames = torch.cat(
            [observation["observation.state"], *features, observation["observation.environment_state"]], dim=-1
        )
        torch.testing.assert_close(policy.encode(observation), frames.flatten(1), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "change, words",
    (
        (lambda c: c["policy"].update(crop_shape=[30, 30]), "front.pool.pos_x"),
        (lambda c: c["policy"].update(eval_fixed_crop=False), "crops images at random"),
        (lambda c: c["policy"]["shape_meta"]["obs"]["front"].update(type="depth"), "'front' (depth"),
        (lambda c: c["policy"].update(crop_shape=[60, 60]), "smaller than the crop"),
    ),
)
def test_a_hybrid_policy_that_cannot_be_run_is_one_clear_line(change, words, tmp_path):
    encoder = observation_encoder(SHAPES, crop=(36, 37))
    network = unet(ACTION, global_cond_dim=FRAMES * 35)
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    weights |= {f"obs_encoder.{name}": value for name, value in encoder.state_dict().items()}
    weights |= normaliser_weights({"front": 1, "wrist": 1, "position": 3, "action": ACTION})
    cfg = hybrid_cfg("DiffusionUnetHybridImagePolicy", [36, 37], **SIZES)
    change(cfg)
    with pytest.raises(SpecpolicyError) as error:
        load_policy(write_workspace(tmp_path / "latest.ckpt", cfg, weights))
    assert words in str(error.value) and "\n" not in str(error.value)
