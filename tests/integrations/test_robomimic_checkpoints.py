"""Checkpoints of robomimic's DiffusionPolicyUNet: statistics, rotations, samplers, versions."""

import json

import numpy as np
import pytest
import torch
from foreign_files import DDIM, DDPM, FRAMES, robomimic_cfg, unet, write_robomimic
from originals import conditional_sample, make_scheduler

from specpolicy import SpecpolicyError, load_policy

SHAPES = {"object": [4], "position": [3]}
FRAME = 7


def nets(action_dim=3, seed=0, mark=""):
    network = unet(action_dim, global_cond_dim=FRAMES * FRAME, seed=seed)
    return network, {f"noise_pred_net.{mark}{name}": value for name, value in network.state_dict().items()}


def observation(batch=2):
    generator = torch.Generator().manual_seed(2)
    return {key: torch.randn(batch, FRAMES, *shape, generator=generator) for key, shape in SHAPES.items()}


def original(network, obs, settings, steps):
    """What `_get_action_trajectory` computes before it cuts the chunk."""
    cond = torch.cat([obs[key] for key in SHAPES], dim=-1).flatten(1)
    data = torch.zeros(len(cond), 8, network.final_conv[1].out_channels)
    with torch.no_grad():
        scheduler = make_scheduler(settings)
        return conditional_sample(network, scheduler, steps, data, data.bool(), global_cond=cond)


@pytest.mark.parametrize("sampler, settings, steps", (("ddpm", DDPM, 20), ("ddim", DDIM, 5)))
@pytest.mark.parametrize("averaged", (True, False))
def test_the_chunk_is_the_original_one(sampler, settings, steps, averaged, tmp_path):
    """Sizes come from the weights: the configuration names others. Averaged weights are used where there are any."""
    (network, weights), (_, other) = nets(), nets(seed=5)
    states = (other, weights) if averaged else (weights, None)
    cfg = robomimic_cfg(SHAPES, sampler, steps)
    path = write_robomimic(tmp_path / "model.pth", cfg, states[0], SHAPES, states[1])
    torch.manual_seed(4)
    expected = original(network, observation(), settings, steps)
    policy = load_policy(path)
    for candidate in (policy, load_policy(policy.save(tmp_path / "converted"))):
        torch.manual_seed(4)
        out = candidate.predict(observation(), "ddpm")
        torch.testing.assert_close(out.actions, expected, rtol=2e-5, atol=2e-5)
        assert candidate.executable(out.actions).shape == (2, 3, 3)
    assert policy.first_action == 1 and policy.config.source["task"] == "Lift"


@pytest.mark.parametrize("names", (("offset", "scale"), ("mean", "std")))
@pytest.mark.parametrize("kind", (np.asarray, np.ndarray.tolist))
def test_observation_normalisation(names, kind, tmp_path):
    """By offset and scale in current versions, by mean and deviation in older ones; as arrays or nested lists."""
    rng = np.random.default_rng(0)
    statistics = {
        key: {names[0]: kind(rng.normal(size=(1, *shape))), names[1]: kind(rng.uniform(0.5, 2, size=(1, *shape)))}
        for key, shape in SHAPES.items()
    }
    path = tmp_path / "model.pth"
    write_robomimic(path, robomimic_cfg(SHAPES), nets()[1], SHAPES, obs_normalization_stats=statistics)
    expected = torch.cat(
        [
            (value - torch.as_tensor(statistics[key][names[0]])) / torch.as_tensor(statistics[key][names[1]])
            for key, value in observation().items()
        ],
        dim=-1,
    )
    torch.testing.assert_close(load_policy(path).encode(observation()), expected.flatten(1).float())


def rotation_statistics(rng):
    keys = {"action_dict/abs_pos": 3, "action_dict/abs_rot_6d": 6, "action_dict/gripper": 1}
    return {
        key: {"scale": rng.uniform(0.5, 2, size=(1, size)).tolist(), "offset": rng.normal(size=(1, size)).tolist()}
        for key, size in keys.items()
    }


@pytest.mark.parametrize("target", (None, "rot_axis_angle", "rot_euler"))
def test_rotations_are_converted_as_robomimic_does(target, tmp_path):
    from scipy.spatial.transform import Rotation

    statistics = rotation_statistics(np.random.default_rng(1))
    keys = list(statistics)
    entry = {"normalization": "min_max", "format": "rot_6d"} | ({"convert_at_runtime": target} if target else {})
    formats = {key: entry if key == keys[1] else {"normalization": None} for key in keys}
    train = {"action_keys": keys, "action_config": formats}
    network, weights = nets(10)
    path = tmp_path / "model.pth"
    write_robomimic(path, robomimic_cfg(SHAPES, train=train), weights, SHAPES, action_normalization_stats=statistics)
    policy = load_policy(path)
    assert policy.action_dim == 7 and policy.sample_shape == (8, 10)

    torch.manual_seed(4)
    chunk = original(network, observation(), DDPM, 20).double().numpy()
    parts = np.split(chunk, [3, 9], axis=-1)
    position, six, gripper = (
        part * s["scale"][0] + s["offset"][0] for part, s in zip(parts, statistics.values(), strict=True)
    )
    rows = six.reshape(-1, 2, 3)  # Gram-Schmidt
    first = rows[:, 0] / np.linalg.norm(rows[:, 0], axis=-1, keepdims=True)
    second = rows[:, 1] - (first * rows[:, 1]).sum(-1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    rotations = Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=1))
    for candidate in (policy, load_policy(policy.save(tmp_path / "converted"))):
        torch.manual_seed(4)
        actions = candidate.predict(observation(), "ddpm").actions.double().numpy()
        assert actions.shape == (2, 8, 7)
        np.testing.assert_allclose(actions[..., :3], position, atol=1e-4)
        np.testing.assert_allclose(actions[..., 6:], gripper, atol=1e-4)
        three = actions[..., 3:6].reshape(-1, 3)
        found = Rotation.from_euler("XYZ", three) if target == "rot_euler" else Rotation.from_rotvec(three)
        assert (found * rotations.inv()).magnitude().max() < 1e-3
        if target == "rot_euler":
            np.testing.assert_allclose(three, rotations.as_euler("XYZ"), atol=1e-3)


@pytest.mark.parametrize("mark", ("_orig_mod.", "module."))
def test_names_left_by_compile_and_data_parallel(mark, tmp_path):
    network, weights = nets(mark=mark)
    policy = load_policy(write_robomimic(tmp_path / "model.pth", robomimic_cfg(SHAPES), weights, SHAPES))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in policy.denoiser.state_dict().items())


def changed(change):
    """Rewrite the file after a change of its content."""

    def apply(path):
        content = torch.load(path, weights_only=False)
        change(content)
        torch.save(content, path)

    return apply


def configured(change):
    def apply(content):
        cfg = json.loads(content["config"])
        change(cfg)
        content["config"] = json.dumps(cfg)

    return changed(apply)


@pytest.mark.parametrize(
    "damage, words",
    (
        (changed(lambda c: c.update(algo_name="act")), "algorithm 'act'"),
        (changed(lambda c: c.update(algo_name="bc")), "algorithm 'bc'"),
        (changed(lambda c: c.pop("config")), "lacks its 'config'"),
        (changed(lambda c: c.update(config="{")), "not valid JSON"),
        (changed(lambda c: c.pop("shape_metadata")), "lacks shape_metadata['all_shapes']"),
        (changed(lambda c: c.update(model={})), "lacks model['nets']"),
        (changed(lambda c: c["model"].update(nets=3)), "is not understood"),
        (
            changed(lambda c: c["model"]["nets"].pop("policy.noise_pred_net.final_conv.1.bias")),
            "final_conv.1.bias is missing",
        ),
        (
            changed(lambda c: c["model"]["nets"].pop("policy.noise_pred_net.down_modules.0.0.cond_encoder.1.weight")),
            "lacks the weight 'down_modules.0.0.cond_encoder.1.weight'",
        ),
        (
            changed(lambda c: c["model"]["nets"].update({"policy.obs_encoder.nets.obs.obs_nets.a.b": torch.ones(1)})),
            "'a.b'",
        ),
        (changed(lambda c: c["shape_metadata"]["all_shapes"].update(object=[5])), "have 16"),
        (
            changed(lambda c: c.update(obs_normalization_stats={"object": {"mean": [[0]], "std": [[1]]}})),
            "lacks 'position'",
        ),
        (
            changed(lambda c: c.update(action_normalization_stats={"a": {"scale": [[1, 1]], "offset": [[0, 0]]}})),
            "a have 2",
        ),
        (configured(lambda c: c["algo"]["ddpm"].update(enabled=False)), "neither algo.ddpm nor algo.ddim"),
        (configured(lambda c: c["algo"]["horizon"].pop("prediction_horizon")), "lacks 'algo.horizon.prediction_h"),
        (configured(lambda c: c["algo"].update(unet={"enabled": False}, transformer={"enabled": True})), "transformer"),
        (configured(lambda c: c["observation"]["encoder"]["low_dim"].update(core_class="MLP")), "by a network"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("hello"), "cannot be read"),
        (changed(dict.clear), "no checkpoint of diffusion_policy"),
        (lambda path: torch.save(torch.ones(3), path), "holds Tensor"),
    ),
)  # fmt: skip
def test_what_cannot_be_run_is_one_clear_line(damage, words, tmp_path):
    path = write_robomimic(tmp_path / "model.pth", robomimic_cfg(SHAPES), nets()[1], SHAPES)
    damage(path)
    with pytest.raises(SpecpolicyError) as error:
        load_policy(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
