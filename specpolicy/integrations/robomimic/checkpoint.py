"""Checkpoints and policies of robomimic's DiffusionPolicyUNet (version 0.5, and branches before it), without robomimic.

A `.pth` is a dictionary: `config` is JSON, `model` holds `nets` and perhaps `ema`. robomimic builds its U-Net with
default sizes and ignores those of the configuration, so all sizes are read from the weights.
"""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.foreign import ForeignCheckpoint
from specpolicy.integrations.interpolation import Config
from specpolicy.integrations.names import (
    VISUAL_CORE,
    VISUAL_CORE_IGNORED,
    VISUAL_CORE_POSITIONS,
    below,
    renamed,
    unwrapped,
)
from specpolicy.integrations.robomimic.settings import (
    WITHOUT_EFFECT,
    Algo,
    Crop,
    LowDimEncoder,
    RgbEncoder,
    check_content,
    several,
)
from specpolicy.integrations.robomimic.statistics import action_statistics, observation_statistics
from specpolicy.integrations.schedulers import chain_config
from specpolicy.integrations.sizes import check_positions, unet_options, vision_options
from specpolicy.integrations.unpickling import plain
from specpolicy.integrations.wrapping import Drawer, require
from specpolicy.networks import ResNetOptions
from specpolicy.parsing import parse, parse_json, shown
from specpolicy.rates import parse_hz, same_rate
from specpolicy.samplers import Sampler
from specpolicy.samplers.base import Generators

ENCODER_NETS = "policy.obs_encoder.nets.obs.obs_nets."
PARTS = ("policy.noise_pred_net.", ENCODER_NETS)


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether an unpickled file is a checkpoint of robomimic."""
    return "algo_name" in content and "model" in content


def convert(content: Mapping[str, Any], path: Path) -> ForeignCheckpoint:
    """Convert an unpickled file to a checkpoint.

    Raises:
        SpecpolicyError: another algorithm, or a policy that lacks a part.
    """
    if content["algo_name"] != "diffusion_policy":
        raise SpecpolicyError(
            f"{path} holds a policy of robomimic's algorithm '{content['algo_name']}': diffusion_policy is supported"
        )
    check_content(content, path)
    cfg = Config(_configuration(content, path), str(path))
    algo = parse(Algo, cfg.need("algo"), path, "algo")
    model = content["model"]
    if not isinstance(model, Mapping) or "nets" not in model:
        raise SpecpolicyError(f"{path} lacks model['nets']: it is incomplete, or of a robomimic before 0.3")
    which = "nets" if model.get("ema") is None else "ema"
    weights = unwrapped(model[which])
    other = [name for name in weights if not name.startswith(PARTS)]
    if other:
        raise SpecpolicyError(f"{path}: the weight '{other[0]}' is not known")
    unet = below(weights, "policy.noise_pred_net.")
    network, action_dim, cond_dim = unet_options(unet, str(path))
    n_obs_steps = algo.horizon.observation_horizon
    stacked = cfg.get("train.frame_stack")
    if stacked not in (None, n_obs_steps):
        raise SpecpolicyError(
            f"{path}: train.frame_stack is {shown(stacked)}, algo.horizon.observation_horizon {n_obs_steps}: "
            "they must be equal"
        )
    observation = _observation(content, cfg, path)
    config: dict[str, Any] = {"network": network}
    cameras = [key for key, shape in observation.items() if isinstance(shape, list)]
    encoder, unknown = renamed(below(weights, ENCODER_NETS), VISUAL_CORE, cameras)
    strange = [name for name in unknown if not VISUAL_CORE_IGNORED.fullmatch(name)]
    if strange:
        raise SpecpolicyError(f"{path}: its observation encoder has the weight '{strange[0]}', which is not supported")
    if cameras:
        config["vision"] = _vision(cfg, vision_options(encoder, str(path)), path)
        images = {key: observation[key] for key in cameras}
        check_positions(below(weights, ENCODER_NETS), VISUAL_CORE_POSITIONS, images, config["vision"], str(path))
    features = ResNetOptions(**config["vision"]).output_dim if cameras else 0
    frame = sum(shape if isinstance(shape, int) else features for shape in observation.values())
    if cond_dim != n_obs_steps * frame:
        raise SpecpolicyError(
            f"{path}: its network takes a condition of {cond_dim} numbers, "
            f"{n_obs_steps} frames of {', '.join(observation)} have {n_obs_steps * frame}"
        )
    actions, rotations = action_statistics(content, cfg, action_dim, path)
    config |= {
        "chain": _chain(algo),
        "observation": observation,
        "action_dim": action_dim,
        "horizon": algo.horizon.prediction_horizon,
        "n_obs_steps": n_obs_steps,
        # A plan has no more actions after its frames, and robomimic then executes fewer.
        "n_action_steps": min(algo.horizon.action_horizon, algo.horizon.prediction_horizon - n_obs_steps + 1),
        "rotations": rotations,
        "control_hz": _hz(content, path),
        "normaliser": {**observation_statistics(content, cfg, observation, path), "action": actions},
        "source": {
            "project": "robomimic",
            "policy": "DiffusionPolicyUNet",
            "task": _task(content),
            "weights": which,
        },
    }
    return ForeignCheckpoint(config, unet | encoder)


def _configuration(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if "config" not in content:
        raise SpecpolicyError(f"{path} lacks its 'config': the checkpoint is incomplete")
    config = content["config"]
    if isinstance(config, str):
        return parse_json(config, f"{path}: its 'config'")
    found = plain(config)
    if not isinstance(found, dict):
        raise SpecpolicyError(f"{path}: its 'config' is {shown(found)}, no mapping")
    return found


def _environments(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the descriptions of the environments of the demonstrations; with several files it is a list."""
    return [one for one in several(plain(content.get("env_metadata"))) if isinstance(one, Mapping)]


def _task(content: Mapping[str, Any]) -> str | None:
    names = dict.fromkeys(str(one["env_name"]) for one in _environments(content) if "env_name" in one)
    return ", ".join(names) or None


def _hz(content: Mapping[str, Any], path: Path) -> float | None:
    """Return the rate of the environments; None if it is unknown or they differ."""
    found = [one.get("env_kwargs") for one in _environments(content)]
    rates = [
        parse_hz(arguments.get("control_freq") if isinstance(arguments, Mapping) else None, f"{path}: control_freq")
        for arguments in found
    ]
    return rates[0] if rates and None not in rates and all(same_rate(rates[0], one) for one in rates) else None


def _observation(content: Mapping[str, Any], cfg: Config, path: Path) -> dict[str, Any]:
    """Return the shape of each observation key, in the order in which robomimic concatenates them."""
    shapes = (content.get("shape_metadata") or {}).get("all_shapes")
    if not shapes:
        raise SpecpolicyError(f"{path} lacks shape_metadata['all_shapes']: the checkpoint is incomplete")
    groups = cfg.need("observation.modalities")
    others = [
        key
        for group, kinds in groups.items()
        if group != "obs"
        for keys in (kinds or {}).values()
        for key in keys or ()
    ]
    if others:
        raise SpecpolicyError(f"{path} wants a goal ('{others[0]}'), which is not supported")
    kinds = {key: kind for kind, keys in cfg.need("observation.modalities.obs").items() for key in keys}
    missing = [key for key in kinds if key not in shapes]
    if missing:
        raise SpecpolicyError(f"{path}: shape_metadata['all_shapes'] lacks '{missing[0]}', which the policy looks at")
    observation: dict[str, Any] = {}
    for key, shape in shapes.items():
        kind = kinds.get(key)
        if kind is None:  # a key that the policy does not use
            continue
        if (kind, len(shape)) not in (("low_dim", 1), ("rgb", 3)):
            raise SpecpolicyError(f"{path}: the observation '{key}' ({kind}, shape {list(shape)}) is not supported")
        observation[key] = int(shape[0]) if kind == "low_dim" else [int(side) for side in shape]
    parse(LowDimEncoder, cfg.get("observation.encoder.low_dim") or {}, path, "observation.encoder.low_dim")
    return observation


def _vision(cfg: Config, found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return our options of all cameras' encoders, from the weights and the crop."""
    encoder = parse(RgbEncoder, cfg.get("observation.encoder.rgb") or {}, path, "encoder.rgb")
    core = encoder.core_kwargs
    keypoints = None if core.pool_kwargs is None else core.pool_kwargs.num_kp
    if keypoints not in (None, found["keypoints"]):
        raise SpecpolicyError(
            f"{path}: encoder.rgb.core_kwargs.pool_kwargs.num_kp is {keypoints}, its weights have others"
        )
    if core.feature_dimension not in ("default", found["features"]):
        raise SpecpolicyError(
            f"{path}: encoder.rgb.core_kwargs.feature_dimension is {core.feature_dimension}, its weights have others"
        )
    return {**found, "crop": _crop(encoder, path), "crop_offset": "floor"}


def _crop(encoder: RgbEncoder, path: Path) -> list[int] | None:
    """Return the crop of all cameras. At run time robomimic crops in the middle and adds neither colour nor noise."""
    names, options = several(encoder.obs_randomizer_class), several(encoder.obs_randomizer_kwargs or {})
    crop = None
    for index, name in enumerate(names):
        if name in WITHOUT_EFFECT:
            continue
        if name != "CropRandomizer" or crop is not None:
            raise SpecpolicyError(f"{path}: the image randomiser {shown(name)} is not supported: one CropRandomizer is")
        if index >= len(options):  # robomimic then leaves it out
            raise SpecpolicyError(
                f"{path}: encoder.rgb.obs_randomizer_kwargs has {len(options)} entries, and none for the CropRandomizer"
            )
        found = parse(Crop, options[index] or {}, path, "encoder.rgb.obs_randomizer_kwargs")
        crop = [found.crop_height, found.crop_width]
    return crop


def _chain(algo: Algo) -> dict[str, Any]:
    """Return the chain of the checkpoint; robomimic looks for DDPM first."""
    kind, scheduler = ("DDPM", algo.ddpm) if algo.ddpm.enabled else ("DDIM", algo.ddim)
    settings = dataclasses.asdict(scheduler)
    del settings["enabled"]
    return chain_config(kind, settings, settings.pop("num_inference_timesteps"))


def wrap(policy: Any, sampler: str | Sampler = "ddpm", generator: Generators = None) -> Any:
    """Make a policy in memory sample through specpolicy: the same object, whose calls now use `sampler`.

    After each chunk `policy.last_stats` holds its cost (`specpolicy.samplers.SampleStatistics`).

    Args:
        policy: a RolloutPolicy around a DiffusionPolicyUNet, or that algorithm itself. Its normalisation and its queue
            of actions stay in use.
        sampler: a name, or a result of `specpolicy.make_sampler`.
        generator: source of all noises; torch's global one if None.
    """
    algorithm = _algorithm(policy)
    require(algorithm, ("_get_action_trajectory", "nets", "noise_scheduler", "algo_config"), "a DiffusionPolicyUNet")
    drawer = Drawer(sampler, generator)
    policy.last_stats = None

    def get_action_trajectory(self: Any, obs_dict: Mapping[str, Tensor], goal_dict: Any = None) -> Tensor:
        """Return (B, action horizon, D), as the original computes it from observations (B, To, ...)."""
        if goal_dict:
            raise SpecpolicyError("a policy of robomimic that is given a goal cannot be wrapped")
        algorithm = _algorithm(self)
        horizon = algorithm.algo_config.horizon
        averaged = getattr(algorithm, "ema", None)
        nets = (algorithm.nets if averaged is None else averaged.averaged_model)["policy"]
        frames = {key: obs_dict[key] for key in algorithm.obs_shapes}
        # Without frame stacking the axis of time is missing.
        frames = {
            key: value if value.dim() - 2 == len(algorithm.obs_shapes[key]) else value[:, None]
            for key, value in frames.items()
        }
        batch = len(next(iter(frames.values())))
        features = nets["obs_encoder"](obs={key: value.flatten(end_dim=1) for key, value in frames.items()})
        condition = features.reshape(batch, -1)
        settings = algorithm.algo_config.ddpm if algorithm.algo_config.ddpm.enabled else algorithm.algo_config.ddim
        chain = drawer.chain(algorithm.noise_scheduler, settings.num_inference_timesteps)
        shape = (batch, horizon.prediction_horizon, algorithm.ac_dim)
        out = drawer.draw(nets["noise_pred_net"], chain, shape, {"global_cond": condition}, condition)
        self.last_stats = out.stats
        start = horizon.observation_horizon - 1
        return out.actions[:, start : start + horizon.action_horizon]

    # A copy of the policy gets its own.
    algorithm._get_action_trajectory = types.MethodType(get_action_trajectory, policy)
    return policy


def _algorithm(policy: Any) -> Any:
    """Return the algorithm, of itself or of the RolloutPolicy around it."""
    return policy if hasattr(policy, "_get_action_trajectory") else getattr(policy, "policy", policy)
