"""Checkpoints and policies of real-stanford/diffusion_policy (Chi et al. 2023), without that package.

A `.ckpt` is a pickle of {cfg, state_dicts, pickles}. `cfg.policy` says what the policy is made of, `state_dicts` holds
`model` and, where the training averaged its weights, `ema_model`.
"""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.checkpoints import ForeignCheckpoint
from specpolicy.integrations.interpolation import Config
from specpolicy.integrations.names import VISUAL_CORE, VISUAL_CORE_IGNORED, below, renamed, unwrapped
from specpolicy.integrations.schedulers import chain_config
from specpolicy.integrations.sizes import shape_of, unet_options, vision_options
from specpolicy.integrations.unpickling import plain
from specpolicy.integrations.wrapping import Drawer, require
from specpolicy.samplers import Sampler
from specpolicy.samplers.base import Generators

# Policies that are read: (network, with images).
POLICIES = {
    "DiffusionUnetLowdimPolicy": ("unet", False),
    "DiffusionTransformerLowdimPolicy": ("transformer", False),
    "DiffusionUnetHybridImagePolicy": ("unet", True),
    "DiffusionTransformerHybridImagePolicy": ("transformer", True),
}
# Their constructors' defaults, where a configuration may leave something out.
TRANSFORMER_DEFAULTS = {
    False: {"n_layer": 12, "n_head": 12, "n_emb": 768, "causal_attn": False, "time_as_cond": True},
    True: {"n_layer": 8, "n_head": 4, "n_emb": 256, "causal_attn": True, "time_as_cond": True},
}


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether an unpickled file is a workspace of Diffusion Policy."""
    return "state_dicts" in content and "cfg" in content


def convert(content: Mapping[str, Any], path: Path) -> ForeignCheckpoint:
    """The checkpoint of an unpickled workspace.

    Raises:
        SpecpolicyError: a policy of another kind, or one that lacks a part.
    """
    cfg = Config(plain(content["cfg"]) or {}, str(path))
    target = str(cfg.get("policy._target_", ""))
    name = target.rpartition(".")[2]
    if name not in POLICIES:
        raise SpecpolicyError(
            f"{path} holds a {name or 'policy without a name'}, which is not supported: {', '.join(POLICIES)} are"
        )
    kind, images = POLICIES[name]
    weights = unwrapped(_state_dict(content, cfg, path))
    model, encoder = below(weights, "model."), {}
    horizon, n_obs_steps = int(cfg.need("policy.horizon")), int(cfg.need("policy.n_obs_steps"))
    conditioning = _conditioning(cfg, kind, images)
    observation, action_dim = _shapes(cfg, images)
    config: dict[str, Any] = {"conditioning": conditioning}
    if images:
        cameras = [key for key, shape in observation.items() if isinstance(shape, list)]
        encoder = _encoder_weights(weights, cameras, path)
        config["vision"] = {**vision_options(encoder, str(path)), "crop": _crop(cfg, path), "crop_offset": "round"}
    if kind == "unet":
        n_groups = int(cfg.get("policy.n_groups" if images else "policy.model.n_groups", 8))
        config["network"] = unet_options(model, str(path), n_groups)[0]
    else:
        config["network"] = _transformer_options(model, cfg, images, str(path))
    n_action_steps = int(cfg.need("policy.n_action_steps"))
    first = n_obs_steps - 1
    if name == "DiffusionUnetLowdimPolicy" and not cfg.get("policy.oa_step_convention", False):
        first = n_obs_steps
    if cfg.get("policy.pred_action_steps_only", False):
        horizon, first = n_action_steps, 0
    steps = cfg.get("policy.num_inference_steps")
    config |= {
        "chain": chain_config(
            str(cfg.need("policy.noise_scheduler._target_")),
            cfg.need("policy.noise_scheduler"),
            steps,
            cfg.get("policy.eta", 0.0),
            not cfg.get("policy.use_clipped_model_output", False),
        ),
        "observation": observation,
        "action_dim": action_dim,
        "horizon": horizon,
        "n_obs_steps": n_obs_steps,
        "n_action_steps": min(n_action_steps, horizon - first),
        "first_action": first,
        "normaliser": {
            key: _statistics(weights, key, size, path) for key, size in [*observation.items(), ("action", action_dim)]
        },
        "source": {"project": "diffusion_policy", "policy": name, "task": cfg.get("task_name") or cfg.get("task.name")},
    }
    prefix = "" if conditioning in ("global", "tokens") else "network."
    return ForeignCheckpoint(config, {f"{prefix}{key}": value for key, value in model.items()} | encoder)


def _state_dict(content: Mapping[str, Any], cfg: Config, path: Path) -> Mapping[str, Tensor]:
    """The averaged weights if the training averaged them, as its own evaluation does."""
    name = "ema_model" if cfg.get("training.use_ema", False) else "model"
    found = content["state_dicts"]
    if name not in found:
        raise SpecpolicyError(f"{path} lacks the state dict '{name}': it has {', '.join(found)}")
    return found[name]


def _conditioning(cfg: Config, kind: str, images: bool) -> str:
    if kind == "transformer":
        return "tokens" if cfg.get("policy.obs_as_cond", images) else "inpainting"
    if cfg.get("policy.obs_as_local_cond", False):
        return "local"
    return "global" if cfg.get("policy.obs_as_global_cond", images) else "inpainting"


def _shapes(cfg: Config, images: bool) -> tuple[dict[str, Any], int]:
    """(shape of each observation key in the order of the condition, dimension of an action)."""
    if not images:
        return {"obs": int(cfg.need("policy.obs_dim"))}, int(cfg.need("policy.action_dim"))
    meta = cfg.need("policy.shape_meta")
    try:
        observation: dict[str, Any] = {}
        for key, entry in meta["obs"].items():
            shape, kind = list(entry["shape"]), entry.get("type", "low_dim")
            if (kind, len(shape)) not in (("rgb", 3), ("low_dim", 1)):
                raise SpecpolicyError(f"the observation '{key}' ({kind}, shape {shape}) is not supported")
            observation[key] = shape if kind == "rgb" else int(shape[0])
        return observation, int(meta["action"]["shape"][0])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SpecpolicyError(f"its shape_meta is not understood ({type(error).__name__}: {error})") from None


def _crop(cfg: Config, path: Path) -> list[int] | None:
    crop = cfg.get("policy.crop_shape", [76, 76])
    if crop is not None and not cfg.get("policy.eval_fixed_crop", False):
        raise SpecpolicyError(
            f"{path} crops images at random when it is run (eval_fixed_crop is false), which is not supported"
        )
    return crop


def _encoder_weights(weights: Mapping[str, Tensor], cameras: list[str], path: Path) -> dict[str, Tensor]:
    found, unknown = renamed(below(weights, "obs_encoder.obs_nets."), VISUAL_CORE, cameras)
    strange = [name for name in unknown if not VISUAL_CORE_IGNORED.fullmatch(name)]
    if strange or not cameras:
        what = f"has the weight '{strange[0]}'" if strange else "sees no image"
        raise SpecpolicyError(f"{path}: its observation encoder {what}, which is not supported")
    return found


def _transformer_options(model: Mapping[str, Tensor], cfg: Config, images: bool, where: str) -> dict[str, Any]:
    given = cfg.need("policy" if images else "policy.model")
    options = {**TRANSFORMER_DEFAULTS[images], **given}
    n_emb = shape_of(model, "input_emb.weight", where)[0]
    shared = {
        "n_layer": int(options["n_layer"]),
        "n_head": int(options["n_head"]),
        "n_emb": n_emb,
        "causal_attn": "mask" in model,
    }
    if not options["time_as_cond"]:
        return {"kind": "encoder_transformer", **shared}
    return {"kind": "transformer", **shared, "n_cond_layers": int(options.get("n_cond_layers", 0))}


def _statistics(weights: Mapping[str, Tensor], key: str, size: int | list[int], path: Path) -> dict[str, Any]:
    """Scale and offset of one key, of a dimension or an image's shape: normalised = raw * scale + offset."""
    found = {}
    for name in ("scale", "offset"):
        full = f"normalizer.params_dict.{key}.{name}"
        (length,) = shape_of(weights, full, str(path)) or (1,)
        if length != 1 and length != size:
            raise SpecpolicyError(f"{path}: '{full}' has {length} numbers, '{key}' has the size {size}")
        found[name] = weights[full].double().flatten().tolist()
    return found


def wrap(policy: Any, sampler: str | Sampler = "ddpm", generator: Generators = None) -> Any:
    """Make a policy in memory sample through specpolicy: the same object, whose `predict_action` now uses `sampler`.

    policy: any of Diffusion Policy's diffusion policies, with images or without. Its network, normaliser, scheduler
    and number of steps stay in use, and may still be changed. After each call `policy.last_stats` says what the chunk
    cost (`specpolicy.samplers.base.SampleStatistics`).
    generator: of all noises; torch's global one if None.
    """
    require(policy, ("conditional_sample", "noise_scheduler", "num_inference_steps", "model"), "a diffusion policy")
    drawer = Drawer(sampler, generator)
    policy.last_stats = None

    def conditional_sample(
        self: Any,
        condition_data: Tensor,
        condition_mask: Tensor,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        **step_options: Any,
    ) -> Tensor:
        chain = drawer.chain(self.noise_scheduler, self.num_inference_steps, **step_options)
        shape: Any = tuple(condition_data.shape)
        conditions = {"local_cond": local_cond, "global_cond": global_cond, "cond": cond}
        known = (condition_data, condition_mask)
        out = drawer.draw(self.model, chain, shape, conditions, condition_data, known=known, generator=generator)
        self.last_stats = out.stats
        return torch.where(condition_mask, condition_data, out.actions)

    policy.conditional_sample = types.MethodType(conditional_sample, policy)  # a copy of the policy has its own
    return policy
