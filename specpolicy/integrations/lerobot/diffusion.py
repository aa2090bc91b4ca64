"""Diffusion policies of Hugging Face LeRobot, without lerobot: directories of config.json and safetensors.

This file reads the type `diffusion`; `dit` reads the type `multi_task_dit`.

Current versions keep the statistics of their normalisation in separate files, the processors. Versions before 0.4 keep
them among the weights. The first versions had other names in config.json.
"""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.foreign import ForeignCheckpoint
from specpolicy.integrations.lerobot import dit
from specpolicy.integrations.lerobot.dit_wrapping import own_sampler, wrap_dit
from specpolicy.integrations.lerobot.settings import ACTION, ENVIRONMENT, STATE, WEIGHTS, DiffusionConfig
from specpolicy.integrations.lerobot.statistics import BUFFERS, load_tensors, read_normalisation
from specpolicy.integrations.names import (
    LEROBOT_RGB,
    LEROBOT_RGB_IGNORED,
    LEROBOT_RGB_POSITIONS,
    LEROBOT_UNET,
    below,
    renamed,
    unwrapped,
)
from specpolicy.integrations.schedulers import chain_config
from specpolicy.integrations.sizes import check_positions, unet_options, vision_options
from specpolicy.integrations.wrapping import Drawer, require
from specpolicy.parsing import parse, shown
from specpolicy.policy.base import ENCODER
from specpolicy.samplers import Calibration, Sampler
from specpolicy.samplers.base import Generators

PARTS = ("diffusion.unet.", "diffusion.rgb_encoder.", *(f"{module}." for module in BUFFERS))


def read(directory: Path, config: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read the checkpoint of a directory with that config.json.

    Raises:
        SpecpolicyError: a policy of another type, or a file that is missing or damaged.
    """
    kind = config.get("type", "diffusion")
    if kind == "multi_task_dit":
        return dit.read(directory, config)
    if kind != "diffusion":
        what = "an action-chunking transformer (ACT)" if kind == "act" else f"a policy of type {shown(kind)}"
        raise SpecpolicyError(
            f"{directory} holds {what}, which is no diffusion policy: LeRobot's types diffusion and multi_task_dit are "
            "read"
        )
    settings = parse(DiffusionConfig, config, directory / "config.json")
    weights = unwrapped(load_tensors(directory / WEIGHTS))
    if not any(name.startswith("diffusion.unet.") for name in weights):
        raise SpecpolicyError(f"{directory / WEIGHTS} has no 'diffusion.unet.' weights: it is no diffusion policy")
    strange = [name for name in weights if not name.startswith(PARTS)]
    if strange:
        raise SpecpolicyError(f"{directory / WEIGHTS}: the weight '{strange[0]}' is not known")
    try:
        inputs, outputs = settings.features("input"), settings.features("output")
        for name, features in ((STATE, inputs), (ACTION, outputs)):
            if name not in features:
                raise SpecpolicyError(f"it lacks the feature '{name}'")
    except SpecpolicyError as error:
        raise SpecpolicyError(f"{directory / 'config.json'}: {error}") from None
    cameras = [key for key, feature in inputs.items() if feature.type == "VISUAL"]
    # The order of the condition: state, images, state of the environment.
    keys = [STATE, *cameras, *([ENVIRONMENT] if ENVIRONMENT in inputs else [])]
    unet, _ = renamed(below(weights, "diffusion.unet."), LEROBOT_UNET)
    network, action_dim, _ = unet_options(unet, str(directory), settings.n_groups)
    settings.compare(
        directory,
        **{name: network[name] for name in ("down_dims", "kernel_size", "diffusion_step_embed_dim")},
        use_film_scale_modulation=network["cond_predict_scale"],
    )
    normalisation = read_normalisation(directory, weights, settings)
    # An observation has the name from before the policy's own processor renames it.
    outer = {key: normalisation.outer_name(key) for key in keys}
    ours: dict[str, Any] = {
        "network": network,
        "chain": chain_config(
            settings.noise_scheduler_type,
            settings.scheduler(),
            settings.num_inference_steps,
        ),
        "observation": {
            outer[key]: list(inputs[key].shape) if key in cameras else inputs[key].shape[0] for key in keys
        },
        "action_dim": action_dim,
        "horizon": settings.horizon,
        "n_obs_steps": settings.n_obs_steps,
        "n_action_steps": settings.executed(),
        "source": {
            "project": "lerobot",
            "policy": "DiffusionPolicy",
            "task": settings.repo_id,
            "weights": directory.resolve().name,
        },
    }
    encoder: dict[str, Tensor] = {}
    if cameras:
        encoder, ours["vision"] = _vision(weights, settings, cameras, directory)
    ours["normaliser"] = {outer[key]: normalisation.entry(key, inputs[key]) for key in keys}
    ours["normaliser"][ACTION] = normalisation.entry(ACTION, outputs[ACTION])
    return ForeignCheckpoint(ours, unet | encoder)


def _vision(
    weights: Mapping[str, Tensor], settings: DiffusionConfig, cameras: list[str], directory: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights of the image encoders under our names, and their options."""
    found = below(weights, "diffusion.rgb_encoder.")
    shared = any(name.startswith("backbone.") for name in found)
    numbered = {f"0.{name}": value for name, value in found.items()} if shared else found
    encoder, unknown = renamed(numbered, LEROBOT_RGB, [str(index) for index in range(len(cameras))])
    strange = [name for name in unknown if not LEROBOT_RGB_IGNORED.fullmatch(name)]
    if strange:
        raise SpecpolicyError(f"{directory / WEIGHTS}: the weight 'diffusion.rgb_encoder.{strange[0]}' is not known")
    for index in range(1 if shared else len(cameras)):
        encoder[f"{ENCODER}vision.{index}.pool.temperature"] = torch.ones(1)
    resize, crop = settings.resize_shape, settings.crop_shape
    if resize is not None:  # its crop then follows from a ratio
        ratio = settings.crop_ratio
        crop = (int(resize[0] * ratio), int(resize[1] * ratio)) if ratio < 1 else None
    options = vision_options(encoder, str(directory))
    settings.compare(
        directory,
        vision_backbone=f"resnet{options['layers']}",
        use_group_norm=options["group_norm"],
        spatial_softmax_num_keypoints=options["keypoints"],
        use_separate_rgb_encoder_per_camera=not shared,
    )
    vision = {
        **options,
        "resize": None if resize is None else list(resize),
        "crop": None if crop is None else list(crop),
        "crop_offset": "round",
        "shared": shared,
    }
    inputs = settings.features("input")
    images = {str(index): inputs[camera].shape for index, camera in enumerate(cameras)}
    check_positions(numbered, LEROBOT_RGB_POSITIONS, images, vision, str(directory))
    return encoder, vision


def wrap(
    policy: Any,
    sampler: str | Sampler | None = None,
    generator: Generators = None,
    calibration: Calibration | None = None,
) -> Any:
    """Make a policy in memory sample through specpolicy: the same object, whose `select_action` and
    `predict_action_chunk` now use `sampler`.

    After each chunk `policy.last_stats` holds its cost (`specpolicy.samplers.SampleStatistics`).

    Args:
        policy: LeRobot's DiffusionPolicy of any version, or its MultiTaskDiTPolicy; its queues, encoders and
            processors stay in use.
        sampler: a name, or a result of `specpolicy.make_sampler`; None: what the policy draws with by itself, "ddpm"
            or the solver of its flow. The exact samplers draw from the ancestral chain of a flow, another distribution.
        generator: source of all noises; torch's global one if None.
        calibration: of its denoiser, for `recycled`; see `specpolicy.calibrate`.

    Raises:
        SpecpolicyError: another kind of policy, a scheduler that we do not reproduce, or a sampler that cannot walk
            the policy's chain.
    """
    chosen = sampler or own_sampler(policy)
    if hasattr(policy, "noise_predictor"):
        return wrap_dit(policy, Drawer(chosen, generator, calibration), own=sampler is None)
    drawer = Drawer(chosen, generator, calibration, LEROBOT_UNET)
    require(policy, ("diffusion", "config"), "LeRobot's DiffusionPolicy or MultiTaskDiTPolicy")
    model = policy.diffusion
    require(model, ("conditional_sample", "unet", "noise_scheduler", "num_inference_steps"), "its DiffusionModel")
    # The first versions have no features, but shapes.
    feature = getattr(policy.config, "action_feature", None)
    actions = policy.config.output_shapes["action"][0] if feature is None else feature.shape[0]
    chain = drawer.chain(model.noise_scheduler, model.num_inference_steps)
    drawer.check(chain, (policy.config.horizon, actions), next(model.parameters()))
    policy.last_stats = None

    def conditional_sample(
        self: Any,
        batch_size: int,
        global_cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        model = self.diffusion
        chain = drawer.chain(model.noise_scheduler, model.num_inference_steps)
        shape = (batch_size, self.config.horizon, actions)
        like = next(model.parameters())
        conditions = {"global_cond": global_cond}
        out = drawer.draw(model.unet, chain, shape, conditions, like, generator=generator, noise=noise)
        self.last_stats = out.stats
        return out.actions

    model.conditional_sample = types.MethodType(conditional_sample, policy)  # a copy of the policy gets its own
    return policy
