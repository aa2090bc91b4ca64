"""Checkpoints and policies of real-stanford/diffusion_policy (Chi et al. 2023), without that package.

A `.ckpt` is a pickle of {cfg, state_dicts, pickles}. `cfg.policy` describes the policy. `state_dicts` holds `model`
and, where the training averaged its weights, `ema_model`.
"""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.diffusion_policy.settings import (
    ELSEWHERE,
    POLICIES,
    DiffusionTransformerHybridImagePolicy,
    DiffusionTransformerLowdimPolicy,
    DiffusionUnetLowdimPolicy,
    HybridImagePolicy,
    LowdimPolicy,
    Policy,
)
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
from specpolicy.integrations.schedulers import chain_config
from specpolicy.integrations.sizes import check_positions, shape_of, unet_options, vision_options
from specpolicy.integrations.unpickling import plain
from specpolicy.integrations.wrapping import Drawer, require
from specpolicy.parsing import parse, shown
from specpolicy.samplers import Sampler
from specpolicy.samplers.base import Generators

CONTENT = ("cfg", "state_dicts", "pickles")  # of a workspace
PARTS = ("model.", "normalizer.params_dict.", "obs_encoder.obs_nets.")  # of a state dict
EMPTY = ("_dummy_variable", "mask_generator._dummy_variable")


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether an unpickled file is a workspace of Diffusion Policy."""
    return "state_dicts" in content and "cfg" in content


def convert(content: Mapping[str, Any], path: Path) -> ForeignCheckpoint:
    """Convert an unpickled workspace to a checkpoint.

    Raises:
        SpecpolicyError: a policy of another kind, or one that lacks a part.
    """
    strange = [name for name in content if name not in CONTENT]
    if strange:
        raise SpecpolicyError(f"{path} holds {shown(strange[0])}, which a workspace of Diffusion Policy does not write")
    cfg = Config(plain(content["cfg"]) or {}, str(path))
    target = str(cfg.get("policy._target_", ""))
    name = target.rpartition(".")[2]
    if name not in POLICIES or not target.startswith("diffusion_policy."):
        raise SpecpolicyError(
            f"{path} holds a {target or 'policy without a name'}, which is not supported: {', '.join(POLICIES)} of "
            "diffusion_policy are"
        )
    policy = _policy(cfg, name, path)
    which, state_dict = _state_dict(content, cfg, path)
    weights = unwrapped(state_dict)
    images = isinstance(policy, HybridImagePolicy)
    strange = [name for name in weights if not name.startswith(PARTS[: 2 + images]) and name not in EMPTY]
    if strange:
        raise SpecpolicyError(f"{path}: the weight '{strange[0]}' is not known")
    model, encoder = below(weights, "model."), {}
    horizon, first = policy.horizon, policy.n_obs_steps - 1
    conditioning = _conditioning(policy)
    observation, action_dim = _shapes(policy)
    config: dict[str, Any] = {"conditioning": conditioning, "network": _network(model, policy, path)}
    if isinstance(policy, HybridImagePolicy):
        cameras = [key for key, shape in observation.items() if isinstance(shape, list)]
        encoder = _encoder_weights(weights, cameras, path)
        vision = vision_options(encoder, str(path))
        _compare(path, policy, obs_encoder_group_norm=vision["group_norm"])
        config["vision"] = {**vision, "crop": _crop(policy, path), "crop_offset": "round"}
        check_positions(
            below(weights, "obs_encoder.obs_nets."),
            VISUAL_CORE_POSITIONS,
            {key: observation[key] for key in cameras},
            config["vision"],
            str(path),
        )
    if isinstance(policy, DiffusionUnetLowdimPolicy) and not policy.oa_step_convention:
        first = policy.n_obs_steps
    if getattr(policy, "pred_action_steps_only", False):
        horizon, first = policy.n_action_steps, 0
    if "_target_" not in policy.noise_scheduler:
        raise SpecpolicyError(f"{path}: its configuration lacks 'policy.noise_scheduler._target_'")
    config |= {
        "chain": chain_config(
            str(policy.noise_scheduler["_target_"]),
            policy.noise_scheduler,
            policy.num_inference_steps,
            policy.eta,
            not policy.use_clipped_model_output,
        ),
        "observation": observation,
        "action_dim": action_dim,
        "horizon": horizon,
        "n_obs_steps": policy.n_obs_steps,
        "n_action_steps": min(policy.n_action_steps, horizon - first),
        "first_action": first,
        "normaliser": {
            key: _statistics(weights, key, size, path) for key, size in [*observation.items(), ("action", action_dim)]
        },
        "source": {
            "project": "diffusion_policy",
            "policy": name,
            "task": cfg.get("task_name") or cfg.get("task.name"),
            "weights": which,
        },
    }
    prefix = "" if conditioning in ("global", "tokens") else "network."
    return ForeignCheckpoint(config, {f"{prefix}{key}": value for key, value in model.items()} | encoder)


def _policy(cfg: Config, name: str, path: Path) -> Policy:
    """Return the arguments of the policy's constructor, checked."""
    for place, only in ELSEWHERE.items():
        if cfg.get(place) not in only:
            raise SpecpolicyError(f"{path}: {place}={shown(cfg.get(place))} is not supported: only {only[0]} is")
    kind, given = POLICIES[name], cfg.need("policy")
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    given = {key: value for key, value in given.items() if value is not None or key not in needed}
    return parse(kind, given, path, "policy")


def _state_dict(content: Mapping[str, Any], cfg: Config, path: Path) -> tuple[str, Mapping[str, Tensor]]:
    """Return (name, weights): the averaged ones if the training averaged them, as its own evaluation does."""
    averaged = cfg.get("training.use_ema", False)
    if not isinstance(averaged, bool):
        raise SpecpolicyError(f"{path}: training.use_ema is {shown(averaged)}: it must be true or false")
    name = "ema_model" if averaged else "model"
    found = content["state_dicts"]
    if name not in found:
        raise SpecpolicyError(f"{path} lacks the state dict '{name}': it has {', '.join(found)}")
    return name, found[name]


def _conditioning(policy: Policy) -> str:
    if isinstance(policy, DiffusionTransformerLowdimPolicy | DiffusionTransformerHybridImagePolicy):
        return "tokens" if policy.obs_as_cond else "inpainting"
    if getattr(policy, "obs_as_local_cond", False):
        return "local"
    return "global" if getattr(policy, "obs_as_global_cond", False) else "inpainting"


def _shapes(policy: Policy) -> tuple[dict[str, Any], int]:
    """Return the shape of each observation key in the order of the condition, and the dimension of an action."""
    if isinstance(policy, LowdimPolicy):
        return {"obs": policy.obs_dim}, policy.action_dim
    assert isinstance(policy, HybridImagePolicy)
    meta = policy.shape_meta
    observation = {key: list(own.shape) if own.type == "rgb" else own.shape[0] for key, own in meta.obs.items()}
    return observation, meta.action.shape[0]


def _crop(policy: HybridImagePolicy, path: Path) -> list[int] | None:
    if policy.crop_shape is None:
        return None
    if not policy.eval_fixed_crop:
        raise SpecpolicyError(
            f"{path} crops images at random when it is run (eval_fixed_crop is false), which is not supported"
        )
    return list(policy.crop_shape)


def _encoder_weights(weights: Mapping[str, Tensor], cameras: list[str], path: Path) -> dict[str, Tensor]:
    found, unknown = renamed(below(weights, "obs_encoder.obs_nets."), VISUAL_CORE, cameras)
    strange = [name for name in unknown if not VISUAL_CORE_IGNORED.fullmatch(name)]
    if strange or not cameras:
        what = f"has the weight '{strange[0]}'" if strange else "sees no image"
        raise SpecpolicyError(f"{path}: its observation encoder {what}, which is not supported")
    return found


def _network(model: Mapping[str, Tensor], policy: Any, path: Path) -> dict[str, Any]:
    """Return the options of our network, from `policy.model` or from the policy itself."""
    said = getattr(policy, "model", policy)
    if hasattr(said, "n_groups"):
        options = unet_options(model, str(path), said.n_groups)[0]
        names = ("diffusion_step_embed_dim", "down_dims", "kernel_size", "cond_predict_scale")
        _compare(path, said, **{name: options[name] for name in names})
        return options
    shared = {
        "n_layer": said.n_layer,
        "n_head": said.n_head,
        "n_emb": shape_of(model, "input_emb.weight", str(path))[0],
        "causal_attn": "mask" in model,
    }
    _compare(path, said, n_emb=shared["n_emb"], causal_attn=shared["causal_attn"])
    if not said.time_as_cond:
        return {"kind": "encoder_transformer", **shared}
    return {"kind": "transformer", **shared, "n_cond_layers": said.n_cond_layers}


def _compare(path: Path, said: Any, **found: Any) -> None:
    """Raise if the configuration contradicts the weights."""
    for name, value in found.items():
        own = getattr(said, name)
        own = list(own) if isinstance(own, tuple) else own
        if own is not None and own != value:
            raise SpecpolicyError(f"{path}: its configuration says {name}={own}, its weights have {value}")


def _statistics(weights: Mapping[str, Tensor], key: str, size: int | list[int], path: Path) -> dict[str, Any]:
    """Return scale and offset of one key, of a dimension or an image's shape: normalised = raw * scale + offset."""
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

    After each call `policy.last_stats` holds the cost of the chunk (`specpolicy.samplers.SampleStatistics`).

    Args:
        policy: any of Diffusion Policy's diffusion policies, with images or without. Its network, normaliser, scheduler
            and number of steps stay in use, and may still be changed.
        sampler: a name, or a result of `specpolicy.make_sampler`.
        generator: source of all noises; torch's global one if None.
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

    policy.conditional_sample = types.MethodType(conditional_sample, policy)  # a copy of the policy gets its own
    return policy
