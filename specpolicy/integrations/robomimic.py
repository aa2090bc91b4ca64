"""Checkpoints and policies of robomimic's DiffusionPolicyUNet (versions 0.4 and 0.5, and before), without robomimic.

A `.pth` is a dictionary: `config` is JSON, `model` holds `nets` and perhaps `ema`. The configuration's sizes of the
U-Net are not those of the network, which robomimic builds with its defaults; so all sizes come from the weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.checkpoints import ForeignCheckpoint
from specpolicy.integrations.interpolation import Config
from specpolicy.integrations.names import VISUAL_CORE, VISUAL_CORE_IGNORED, below, renamed, unwrapped
from specpolicy.integrations.schedulers import chain_config
from specpolicy.integrations.sizes import unet_options, vision_options
from specpolicy.integrations.unpickling import plain
from specpolicy.integrations.wrapping import Drawer, require
from specpolicy.networks import VisionOptions
from specpolicy.parsing import parse_json, shown
from specpolicy.samplers import Sampler
from specpolicy.samplers.base import Generators

ENCODER_NETS = "policy.obs_encoder.nets.obs.obs_nets."
# What robomimic hands to its schedulers; whatever else stands there it does not know either.
SCHEDULERS = {
    "ddpm": ("num_train_timesteps", "beta_schedule", "clip_sample", "prediction_type"),
    "ddim": (
        "num_train_timesteps",
        "beta_schedule",
        "clip_sample",
        "prediction_type",
        "set_alpha_to_one",
        "steps_offset",
    ),
}
ROTATIONS = {"rot_axis_angle": "axis_angle", "rot_euler": "euler_xyz"}


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether an unpickled file is a checkpoint of robomimic."""
    return "algo_name" in content and "model" in content


def convert(content: Mapping[str, Any], path: Path) -> ForeignCheckpoint:
    """The checkpoint of an unpickled file.

    Raises:
        SpecpolicyError: another algorithm, or a policy that lacks a part.
    """
    if content["algo_name"] != "diffusion_policy":
        raise SpecpolicyError(
            f"{path} holds a policy of robomimic's algorithm '{content['algo_name']}': diffusion_policy is supported"
        )
    cfg = Config(_configuration(content, path), str(path))
    if cfg.get("algo.transformer.enabled", False) and not cfg.get("algo.unet.enabled", True):
        raise SpecpolicyError(f"{path} holds a diffusion transformer of robomimic: its U-Nets are supported")
    model = content["model"]
    if not isinstance(model, Mapping) or "nets" not in model:
        raise SpecpolicyError(f"{path} lacks model['nets']: it is incomplete, or of a robomimic before 0.3")
    weights = unwrapped(model["ema"] if model.get("ema") is not None else model["nets"])
    unet = below(weights, "policy.noise_pred_net.")
    network, action_dim, cond_dim = unet_options(unet, str(path))
    n_obs_steps = int(cfg.need("algo.horizon.observation_horizon"))
    observation = _observation(content, cfg, path)
    config: dict[str, Any] = {"network": network}
    cameras = [key for key, shape in observation.items() if isinstance(shape, list)]
    encoder, unknown = renamed(below(weights, ENCODER_NETS), VISUAL_CORE, cameras)
    strange = [name for name in unknown if not VISUAL_CORE_IGNORED.fullmatch(name)]
    if strange:
        raise SpecpolicyError(f"{path}: its observation encoder has the weight '{strange[0]}', which is not supported")
    if cameras:
        config["vision"] = {**vision_options(encoder, str(path)), "crop": _crop(cfg), "crop_offset": "floor"}
    features = VisionOptions(**config["vision"]).output_dim if cameras else 0
    frame = sum(shape if isinstance(shape, int) else features for shape in observation.values())
    if cond_dim != n_obs_steps * frame:
        raise SpecpolicyError(
            f"{path}: its network takes a condition of {cond_dim} numbers, "
            f"{n_obs_steps} frames of {', '.join(observation)} have {n_obs_steps * frame}"
        )
    actions, rotations = _actions(content, cfg, action_dim, path)
    config |= {
        "chain": _chain(cfg, path),
        "observation": observation,
        "action_dim": action_dim,
        "horizon": int(cfg.need("algo.horizon.prediction_horizon")),
        "n_obs_steps": n_obs_steps,
        "n_action_steps": int(cfg.need("algo.horizon.action_horizon")),
        "rotations": rotations,
        "normaliser": {**_observation_statistics(content, observation, path), "action": actions},
        "source": {"project": "robomimic", "policy": "DiffusionPolicyUNet", "task": _task(content)},
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


def _task(content: Mapping[str, Any]) -> str | None:
    metadata = content.get("env_metadata")
    return str(metadata["env_name"]) if isinstance(metadata, Mapping) and "env_name" in metadata else None


def _observation(content: Mapping[str, Any], cfg: Config, path: Path) -> dict[str, Any]:
    """Shape of each observation key, in the order in which robomimic concatenates them."""
    shapes = (content.get("shape_metadata") or {}).get("all_shapes")
    if not shapes:
        raise SpecpolicyError(f"{path} lacks shape_metadata['all_shapes']: the checkpoint is incomplete")
    modalities = cfg.need("observation.modalities.obs")
    kinds = {key: kind for kind, keys in modalities.items() for key in keys}
    observation: dict[str, Any] = {}
    for key, shape in shapes.items():
        kind = kinds.get(key)
        if kind is None:  # a goal, or something the policy does not look at
            continue
        if (kind, len(shape)) not in (("low_dim", 1), ("rgb", 3)):
            raise SpecpolicyError(f"{path}: the observation '{key}' ({kind}, shape {list(shape)}) is not supported")
        observation[key] = int(shape[0]) if kind == "low_dim" else [int(side) for side in shape]
    if cfg.get("observation.encoder.low_dim.core_class") is not None:
        raise SpecpolicyError(f"{path} encodes its low-dimensional observations by a network, which is not supported")
    return observation


def _crop(cfg: Config) -> list[int] | None:
    """The crop of all cameras. At run time robomimic crops in the middle and adds neither colour nor noise."""
    names = cfg.get("observation.encoder.rgb.obs_randomizer_class")
    options = cfg.get("observation.encoder.rgb.obs_randomizer_kwargs") or {}
    names, options = ([value] if not isinstance(value, list) else value for value in (names, options))
    crop = None
    for index, name in enumerate(names):
        if name in (None, "ColorRandomizer", "GaussianNoiseRandomizer"):
            continue
        settings = options[index] if index < len(options) else {}
        if name != "CropRandomizer" or settings.get("pos_enc") or crop is not None:
            raise SpecpolicyError(f"the image randomiser {name} {settings} is not supported: one CropRandomizer is")
        crop = [int(settings.get("crop_height", 76)), int(settings.get("crop_width", 76))]
    return crop


def _chain(cfg: Config, path: Path) -> dict[str, Any]:
    for kind, names in SCHEDULERS.items():
        if cfg.get(f"algo.{kind}.enabled", False):
            settings = cfg.need(f"algo.{kind}")
            strange = [name for name in settings if name not in (*names, "enabled", "num_inference_timesteps")]
            if strange:
                raise SpecpolicyError(f"{path}: algo.{kind}.{strange[0]} is not known: robomimic has no such setting")
            handed = {name: settings[name] for name in names if name in settings}
            return chain_config(kind.upper(), handed, settings.get("num_inference_timesteps"))
    raise SpecpolicyError(f"{path}: neither algo.ddpm nor algo.ddim is enabled in its configuration")


def _statistics(entry: Mapping[str, Any]) -> dict[str, Any]:
    """raw = scale * normalised + offset, or mean and std in older files; with a leading axis of one."""
    offset, scale = (entry[name] for name in (("offset", "scale") if "offset" in entry else ("mean", "std")))
    (shift,), (width,) = plain(offset), plain(scale)
    return {"scale": [1 / value for value in width], "offset": [0.0] * len(width), "shift": shift}


def _observation_statistics(content: Mapping[str, Any], observation: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found = content.get("obs_normalization_stats") or {}
    normaliser = {}
    for key, shape in observation.items():
        length = shape if isinstance(shape, int) else 1
        normaliser[key] = {"scale": [1.0] * length, "offset": [0.0] * length}
        if not found:
            continue
        if key not in found:
            raise SpecpolicyError(f"{path}: obs_normalization_stats lacks '{key}'")
        if not isinstance(shape, int):
            raise SpecpolicyError(f"{path} normalises the images '{key}' by statistics, which is not supported")
        try:
            normaliser[key] = _statistics(found[key])
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise SpecpolicyError(f"{path}: obs_normalization_stats of '{key}' are not understood ({error})") from None
    return normaliser


def _actions(
    content: Mapping[str, Any], cfg: Config, action_dim: int, path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """(statistics of the whole action vector, {index: rotation} of what is converted when it is run)."""
    found = content.get("action_normalization_stats")
    identity: dict[str, Any] = {"scale": [1.0] * action_dim, "offset": [0.0] * action_dim, "shift": [0.0] * action_dim}
    if not found:
        return identity, {}
    keys = cfg.get("train.action_keys") or list(found)
    formats = cfg.get("train.action_config") or {}
    total: dict[str, list[float]] = {"scale": [], "offset": [], "shift": []}
    rotations: dict[str, str] = {}
    for key in keys:
        try:
            statistics = _statistics(found[key])
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise SpecpolicyError(
                f"{path}: action_normalization_stats of '{key}' are not understood ({error})"
            ) from None
        entry = formats.get(key) or {}
        if entry.get("format") == "rot_6d":
            target = entry.get("convert_at_runtime") or "rot_axis_angle"
            if target not in ROTATIONS:
                raise SpecpolicyError(f"{path}: the rotation format '{target}' is not supported")
            rotations[str(len(total["scale"]))] = ROTATIONS[target]
        for name, values in total.items():
            values += statistics[name]
    if len(total["scale"]) != action_dim:
        raise SpecpolicyError(
            f"{path}: its network plans {action_dim} numbers, {', '.join(keys)} have {len(total['scale'])}"
        )
    return total, rotations


def wrap(policy: Any, sampler: str | Sampler = "ddpm", generator: Generators = None) -> Any:
    """Make a policy in memory sample through specpolicy: the same object, whose calls now use `sampler`.

    policy: a RolloutPolicy around a DiffusionPolicyUNet, or that algorithm itself. Its normalisation and its queue of
    actions stay in use. After each chunk `policy.last_stats` says what it cost
    (`specpolicy.samplers.base.SampleStatistics`). generator: of all noises; torch's global one if None.
    """
    algorithm = policy if hasattr(policy, "_get_action_trajectory") else getattr(policy, "policy", policy)
    require(algorithm, ("_get_action_trajectory", "nets", "noise_scheduler", "algo_config"), "a DiffusionPolicyUNet")
    drawer = Drawer(sampler, generator)
    policy.last_stats = None

    def get_action_trajectory(obs_dict: Mapping[str, Tensor], goal_dict: Any = None) -> Tensor:
        """(B, action horizon, D), as the original computes it from observations (B, To, ...)."""
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
        policy.last_stats = out.stats
        start = horizon.observation_horizon - 1
        return out.actions[:, start : start + horizon.action_horizon]

    algorithm._get_action_trajectory = get_action_trajectory
    return policy
