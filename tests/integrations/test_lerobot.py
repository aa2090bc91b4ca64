"""LeRobot directories: what LeRobot itself wrote and computed, and the layouts of its other versions."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from foreign_files import FRAMES, lerobot_unet_names, unet, write_lerobot

from specpolicy import SpecpolicyError, load_policy

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "tests" / "data" / "lerobot_state"  # by LeRobot 0.4.4, see scripts/write_lerobot_checkpoint.py
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"


def feature(kind, *shape):
    return {"type": kind, "shape": list(shape)}


CONFIG = {
    "type": "diffusion",
    "n_obs_steps": FRAMES,
    "horizon": 8,
    "n_action_steps": 4,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    "input_features": {STATE: feature("STATE", 3), ENVIRONMENT: feature("ENV", 4)},
    "output_features": {"action": feature("ACTION", 2)},
    "n_groups": 8,
    "noise_scheduler_type": "DDPM",
    "num_train_timesteps": 20,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "num_inference_steps": None,
}
LOW, HIGH = torch.tensor([0.1, 5.0, -2.0]), torch.tensor([0.1, 5.0005, 7.0])  # a constant, a narrow and a wide range
BUFFERS = {
    ("normalize_inputs", STATE): {"min": LOW, "max": HIGH},
    ("normalize_targets", "action"): {"min": torch.zeros(2), "max": torch.ones(2)},
    ("unnormalize_outputs", "action"): {"min": torch.tensor([-1.0, 2.0]), "max": torch.tensor([1.0, 6.0])},
}


def tensors(mark=""):
    network = unet(2, global_cond_dim=FRAMES * 7)
    names = lerobot_unet_names(network.state_dict())
    return network, {f"diffusion.unet.{mark}{name}": value for name, value in names.items()}


def check_peers():
    """The module scripts/check_peers.py."""
    spec = importlib.util.spec_from_file_location("check_peers", ROOT / "scripts" / "check_peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_lerobot_wrote_and_computed():
    differences = check_peers().check(WRITTEN)
    assert len(differences) == 4
    assert all(difference.fine for difference in differences), differences


def test_the_training_directory_and_single_files_will_do(tmp_path):
    shutil.copytree(WRITTEN, tmp_path / "last" / "pretrained_model")
    direct = load_policy(WRITTEN).state_dict()
    for path in ("last", "last/pretrained_model", "last/pretrained_model/model.safetensors"):
        assert all(
            torch.equal(value, direct[name]) for name, value in load_policy(tmp_path / path).state_dict().items()
        )


@pytest.mark.parametrize("mark", ("", "_orig_mod."))
def test_statistics_among_the_weights(mark, tmp_path):
    network, weights = tensors(mark)
    policy = load_policy(write_lerobot(tmp_path, CONFIG, weights, BUFFERS))
    state = torch.tensor([[0.1, 5.0, 1.0], [0.1, 5.0005, 7.0]]).expand(2, FRAMES, 3)
    environment = torch.randn(2, FRAMES, 4)
    expected = 2 * (state - LOW) / (HIGH - LOW + 1e-8) - 1  # epsilon always; the environment's state passes as it is
    cond = policy.encode({STATE: state, ENVIRONMENT: environment})
    torch.testing.assert_close(cond, torch.cat([expected, environment], dim=-1).flatten(1), rtol=1e-6, atol=1e-6)
    x, t = torch.randn(2, 8, 2), torch.tensor([3, 17])
    with torch.no_grad():
        torch.testing.assert_close(policy.denoiser(x, t, cond), network(x, t, cond))
    ends = policy.normaliser.unnormalise("action", torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    torch.testing.assert_close(ends, torch.tensor([[-1.0, 2.0], [1.0, 6.0]]))


def test_the_first_versions(tmp_path):
    """No type, shapes in place of features, modes by key."""
    config = {key: value for key, value in CONFIG.items() if not key.endswith("_features") and key != "type"}
    del config["normalization_mapping"]
    config |= {
        "input_shapes": {STATE: [3], ENVIRONMENT: [4]},
        "output_shapes": {"action": [2]},
        "input_normalization_modes": {STATE: "mean_std", ENVIRONMENT: "min_max"},
        "output_normalization_modes": {"action": "min_max"},
    }
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.5, 0.25])
    buffers = {
        **BUFFERS,
        ("normalize_inputs", STATE): {"mean": mean, "std": std},
        ("normalize_inputs", ENVIRONMENT): {"min": torch.zeros(4), "max": torch.full((4,), 10.0)},
    }
    policy = load_policy(write_lerobot(tmp_path, config, tensors()[1], buffers))
    cond = policy.encode({STATE: (mean + std).expand(1, FRAMES, 3), ENVIRONMENT: torch.full((1, FRAMES, 4), 5.0)})
    torch.testing.assert_close(cond, torch.tensor([[1.0] * 3 + [0.0] * 4] * FRAMES).reshape(1, -1))


@pytest.mark.parametrize("mode, low, high", (("QUANTILES", "q01", "q99"), ("QUANTILE10", "q10", "q90")))
def test_processors_with_other_modes(mode, low, high, tmp_path):
    """Modes and statistics are the processor's own, whatever config.json says; a range of zero becomes epsilon."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(WRITTEN, tmp_path / "policy")
    path = tmp_path / "policy" / "policy_preprocessor.json"
    processor = json.loads(path.read_text())
    processor["steps"][3]["config"] |= {"norm_map": {"STATE": mode, "ENV": "IDENTITY"}, "eps": 0.5}
    path.write_text(json.dumps(processor))
    file = tmp_path / "policy" / processor["steps"][3]["state_file"]
    statistics = {f"{STATE}.{low}": torch.tensor([0.0, 1.0, 2.0]), f"{STATE}.{high}": torch.tensor([0.0, 3.0, 6.0])}
    save_file(load_file(file) | statistics, file)
    policy = load_policy(tmp_path / "policy")
    state = torch.tensor([0.25, 3.0, 2.0]).expand(1, 2, 3)
    normalised = policy.encode({STATE: state, ENVIRONMENT: torch.ones(1, 2, 4)})
    torch.testing.assert_close(normalised[0, :7], torch.tensor([0.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0]))


def act(directory):
    """An action-chunking transformer."""
    write_lerobot(directory, {"type": "act", "chunk_size": 100, "input_features": {}}, {"model.x": torch.ones(1)})


def without(name):
    def change(directory):
        (directory / name).unlink()

    return change


def edited(change):
    def edit(directory):
        config = json.loads((directory / "config.json").read_text())
        change(config)
        (directory / "config.json").write_text(json.dumps(config))

    return edit


def truncated(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_unet(directory):
    from safetensors.torch import save_file

    save_file({"model.encoder.weight": torch.ones(2)}, directory / "model.safetensors")


@pytest.mark.parametrize(
    "damage, words",
    (
        (act, "action-chunking transformer"),
        (edited(lambda c: c.update(type="smolvla")), "'smolvla'"),
        (edited(lambda c: c.pop("horizon")), "lacks 'horizon'"),
        (edited(lambda c: c["input_features"].pop(STATE)), f"lacks the feature '{STATE}'"),
        (edited(lambda c: c.pop("output_features")), "output_features"),
        (edited(lambda c: c.update(noise_scheduler_type="DPM")), "DPM"),
        (truncated, "copy the checkpoint again"),
        (without("model.safetensors"), "has no model.safetensors"),
        (without("policy_postprocessor.json"), "has no policy_postprocessor.json"),
        (without("policy_preprocessor_step_3_normalizer_processor.safetensors"), "has no policy_preprocessor_step_3"),
        (without("policy_preprocessor.json"), "lacks the statistics min and max of 'observation.state'"),
        (lambda d: (d / "policy_preprocessor.json").write_text("{}"), "is not understood"),
        (lambda d: (d / "config.json").write_text("{"), "not valid JSON"),
        (no_unet, "no diffusion policy"),
    ),
)
def test_what_cannot_be_run_is_one_clear_line(damage, words, tmp_path):
    directory = tmp_path / "policy"
    shutil.copytree(WRITTEN, directory)
    damage(directory)
    with pytest.raises(SpecpolicyError) as error:
        load_policy(directory)
    assert words in str(error.value) and str(directory) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_weight_is_named(tmp_path):
    weights = tensors()[1]
    del weights["diffusion.unet.mid_modules.1.conv1.block.0.weight"]
    with pytest.raises(SpecpolicyError, match=r"mid_modules.1.blocks.0.block.0.weight is missing"):
        load_policy(write_lerobot(tmp_path, CONFIG, weights, BUFFERS))
