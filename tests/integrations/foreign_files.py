"""Writes small checkpoints in the layouts of other projects, from networks built here."""

import json
import pickle
import re
from pathlib import Path

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from specpolicy.networks import ConditionalUnet1D, EncoderTransformer, TransformerForDiffusion

STEPS = 20
SIZES = {"diffusion_step_embed_dim": 8, "down_dims": [8, 16], "kernel_size": 3}
HORIZON, FRAMES, EXECUTED = 8, 2, 3
DDPM = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": STEPS,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
DDIM = {
    **{key: DDPM[key] for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "clip_sample")},
    "_target_": "diffusers.schedulers.scheduling_ddim.DDIMScheduler",
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
}


def unet(input_dim, global_cond_dim=None, local_cond_dim=None, seed=0, **options):
    """A small U-Net with weights that matter: the last layer's are made larger."""
    torch.manual_seed(seed)
    network = ConditionalUnet1D(
        input_dim, local_cond_dim=local_cond_dim, global_cond_dim=global_cond_dim, **{**SIZES, **options}
    )
    return network.eval()


def transformer(input_dim, cond_dim, seed=0, **options):
    """A small transformer, its biases and norms away from their initial values."""
    torch.manual_seed(seed)
    sizes = {"n_layer": 2, "n_head": 2, "n_emb": 16, "output_dim": input_dim, "horizon": HORIZON, **options}
    if sizes.pop("time_as_cond", True):
        network = TransformerForDiffusion(input_dim, n_obs_steps=FRAMES, cond_dim=cond_dim, **sizes)
    else:
        network = EncoderTransformer(input_dim, **sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return network.eval()


def normaliser_weights(sizes, seed=1):
    """`normalizer.params_dict...` of Diffusion Policy: {key: dimension}."""
    torch.manual_seed(seed)
    found = {}
    for key, size in sizes.items():
        prefix = f"normalizer.params_dict.{key}."
        found |= {f"{prefix}scale": torch.rand(size) + 0.5, f"{prefix}offset": torch.randn(size)}
        found |= {f"{prefix}input_stats.{name}": torch.randn(size) for name in ("min", "max", "mean", "std")}
    return found


def write_workspace(path, cfg, weights, ema_weights=None, protocol=2):
    """A workspace of Diffusion Policy, as its save_checkpoint writes it."""
    empty = {"mask_generator._dummy_variable": torch.empty(0), "_dummy_variable": torch.empty(0)}
    parameters = torch.nn.Linear(1, 1)
    states = {"model": {**weights, **empty}, "optimizer": torch.optim.AdamW(parameters.parameters()).state_dict()}
    if ema_weights is not None:
        states["ema_model"] = {**ema_weights, **empty}
    content = {
        "cfg": OmegaConf.create(cfg),
        "state_dicts": states,
        "pickles": {"global_step": pickle.dumps(7), "_output_dir": pickle.dumps(None)},
    }
    torch.save(content, path, pickle_protocol=protocol)
    return path


def lowdim_cfg(kind="unet", obs_dim=5, action_dim=2, scheduler=None, use_ema=True, **policy):
    """The configuration of a low-dimensional workspace."""
    name = {"unet": "diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy"}.get(
        kind, "diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy"
    )
    conditioning = {"obs_as_global_cond": True} if kind == "unet" else {"obs_as_cond": True}
    model = policy.pop("model", SIZES if kind == "unet" else {"n_layer": 2, "n_head": 2, "n_emb": 16})
    return {
        "_target_": f"diffusion_policy.workspace.train_diffusion_{kind}_lowdim_workspace.Workspace",
        "task_name": "pusht_lowdim",
        "policy": {
            "_target_": f"diffusion_policy.policy.{name}",
            "model": {"_target_": "diffusion_policy.model.Network", **model},
            "noise_scheduler": dict(scheduler or DDPM),
            "horizon": HORIZON,
            "obs_dim": obs_dim,
            "action_dim": action_dim,
            "n_action_steps": EXECUTED,
            "n_obs_steps": FRAMES,
            "num_inference_steps": STEPS,
            **conditioning,
            **policy,
        },
        "training": {"use_ema": use_ema},
    }


def lerobot_unet_names(weights):
    """Our U-Net's names as LeRobot has them."""
    renamed = {}
    for name, value in weights.items():
        name = name.replace(".blocks.0.", ".conv1.").replace(".blocks.1.", ".conv2.")
        renamed[re.sub(r"^((?:down|up)_modules\.\d+\.2)\.conv\.", r"\1.", name)] = value
    return renamed


def write_lerobot(directory, config, weights, buffers=None):
    """A directory of LeRobot before version 0.4: `buffers` maps (module, key) to statistics."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    for (module, key), statistics in (buffers or {}).items():
        for name, value in statistics.items():
            tensors[f"{module}.buffer_{key.replace('.', '_')}.{name}"] = value.clone()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_robomimic(path, cfg, nets, shapes, ema=None, **rest):
    """A `.pth` of robomimic."""
    content = {
        "model": {"nets": {f"policy.{name}": value for name, value in nets.items()}},
        "config": json.dumps(cfg),
        "algo_name": "diffusion_policy",
        "env_metadata": {"env_name": "Lift", "type": 1, "env_kwargs": {}},
        "shape_metadata": {"ac_dim": 0, "all_shapes": shapes, "all_obs_keys": list(shapes), "use_images": False},
        **rest,
    }
    if ema is not None:
        content["model"]["ema"] = {f"policy.{name}": value for name, value in ema.items()}
    torch.save(content, path)
    return path


def robomimic_cfg(shapes, sampler="ddpm", inference_steps=STEPS, train=None, **encoder):
    """The configuration of a policy over keys of these shapes; three numbers are an image's."""
    kinds = {
        kind: [key for key, shape in shapes.items() if len(shape) == n] for kind, n in (("low_dim", 1), ("rgb", 3))
    }
    schedule = {"num_train_timesteps": STEPS, "num_inference_timesteps": inference_steps}
    schedule |= {"beta_schedule": "squaredcos_cap_v2", "clip_sample": True, "prediction_type": "epsilon"}
    return {
        "algo": {
            "horizon": {"observation_horizon": FRAMES, "action_horizon": EXECUTED, "prediction_horizon": HORIZON},
            "unet": {"enabled": True, "down_dims": [256, 512, 1024], "diffusion_step_embed_dim": 256},  # never used
            "ema": {"enabled": True},
            "ddpm": {"enabled": sampler == "ddpm", **schedule},
            "ddim": {"enabled": sampler == "ddim", "set_alpha_to_one": True, "steps_offset": 0, **schedule},
        },
        "observation": {
            "modalities": {"obs": {**kinds, "depth": [], "scan": []}},
            "encoder": {"low_dim": {"core_class": None}, "rgb": {"core_class": "VisualCore", **encoder}},
        },
        "train": train or {},
    }
