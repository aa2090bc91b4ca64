"""Writes small policies in the layout of LeRobot's multi_task_dit, from networks built here."""

import json

import torch
from foreign_files import write_lerobot
from safetensors.torch import save_file
from torch import nn

from specpolicy.networks import DiffusionTransformer
from specpolicy.networks.clip import ClipVision, LanguageEncoder
from specpolicy.networks.vision_options import ClipOptions, LanguageOptions

STATE, CAMERA, ACTION, TOKENS = "observation.state", "observation.images.front", "action", "observation.language.tokens"
OBS, ACTIONS, HORIZON, FRAMES, STEPS, HIDDEN = 5, 4, 8, 2, 20, 16
SIZES = {"hidden_dim": HIDDEN, "num_layers": 2, "num_heads": 2, "timestep_embed_dim": 8}
VISION = ClipOptions(width=768, layers=1, heads=12, hidden=8, patch=16, size=32)  # of a published tower, one layer
LANGUAGE = LanguageOptions(width=512, layers=1, heads=8, hidden=8, vocabulary=64, positions=12, features=HIDDEN)
CONFIG = {
    "type": "multi_task_dit",
    "n_obs_steps": FRAMES,
    "horizon": HORIZON,
    "n_action_steps": 5,
    "input_features": {STATE: {"type": "STATE", "shape": [OBS]}, CAMERA: {"type": "VISUAL", "shape": [3, 40, 40]}},
    "output_features": {ACTION: {"type": "ACTION", "shape": [ACTIONS]}},
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    "objective": "diffusion",
    "num_train_timesteps": STEPS,
    **SIZES,
    "use_positional_encoding": False,
    "use_rope": True,
    "image_crop_shape": [32, 32],
    "tokenizer_max_length": 10,
    "use_separate_rgb_encoder_per_camera": False,
}
STATISTICS = {
    STATE: {"min": torch.full((OBS,), -2.0), "max": torch.full((OBS,), 4.0)},
    CAMERA: {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)},
    ACTION: {"min": torch.arange(4.0), "max": torch.arange(4.0) + 2},
}


def drawn(module, seed=0, std=0.3):
    """The module with random weights."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval()


def denoiser(cond_dim, **options):
    """A small denoiser."""
    return drawn(DiffusionTransformer(ACTIONS, ACTIONS, HORIZON, cond_dim, **{**SIZES, **options}))


def towers():
    """Encoders of images and of texts."""
    return drawn(ClipVision(VISION), std=0.05), drawn(LanguageEncoder(LANGUAGE), std=0.05)


def named(network, vision=None, language=None, level=""):
    """Weights under LeRobot's names; `level`: one that transformers had before version 5."""
    weights = {f"noise_predictor.{name}": value for name, value in network.state_dict().items()}
    if vision is not None:
        prefix = f"observation_encoder.vision_encoder.model.{level and 'vision_model.'}"
        weights |= {prefix + name: value for name, value in vision.state_dict().items()}
        weights[f"{prefix}post_layernorm.weight"] = torch.ones(VISION.width)
    if language is not None:
        for name, value in language.state_dict().items():
            own = name.replace("tower.", f"text_encoder.{level and 'text_model.'}", 1)
            weights[f"observation_encoder.text_encoder.{own}"] = value
    return weights


def write_processors(directory, config, statistics=STATISTICS, side="right", tokens=10):
    """The two processors and their statistics."""
    features = {**config["input_features"], **config["output_features"]}
    settings = {"eps": 1e-8, "features": features, "norm_map": config["normalization_mapping"]}
    tokenizer = {"max_length": tokens, "task_key": "task", "padding_side": side, "padding": "max_length"}
    steps = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "tokenizer_processor", "config": {**tokenizer, "truncation": True, "tokenizer_name": "clip"}},
        {"registry_name": "device_processor", "config": {"device": "cpu"}},
        {"registry_name": "normalizer_processor", "config": settings, "state_file": "statistics.safetensors"},
    ]
    before = {"name": "policy_preprocessor", "steps": steps}
    last = {"registry_name": "unnormalizer_processor", "config": settings, "state_file": "statistics.safetensors"}
    after = {"name": "policy_postprocessor", "steps": [last]}
    (directory / "policy_preprocessor.json").write_text(json.dumps(before))
    (directory / "policy_postprocessor.json").write_text(json.dumps(after))
    flat = {f"{key}.{name}": value for key, found in statistics.items() for name, value in found.items()}
    save_file(flat, directory / "statistics.safetensors")
    return directory


def write_alone(directory, cond_dim=FRAMES * 11, config=(), **options):
    """A policy without processors, and its denoiser."""
    network = denoiser(cond_dim, **options)
    return write_lerobot(directory, {**CONFIG, **dict(config)}, named(network)), network


def write_whole(directory, level="", config=()):
    """A policy with encoders, and its parts."""
    vision, language = towers()
    network = denoiser(FRAMES * (OBS + VISION.width + HIDDEN))
    config = {**CONFIG, **dict(config)}
    write_lerobot(directory, config, named(network, vision, language, level))
    return write_processors(directory, config), network, vision, language
