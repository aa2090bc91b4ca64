"""LeRobot's policies of type `multi_task_dit`: a diffusion transformer, conditioned on state, images and the text of a
task.

Its images and its text go through towers of CLIP, whose numbers of heads and activations are in no file of the policy.
They are known where the towers are published ones, and then observations are encoded here. Otherwise the denoiser
stands alone: an observation has one key, `condition`, which is what LeRobot's own encoder returns.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.foreign import ForeignCheckpoint
from specpolicy.integrations.lerobot.dit_encoders import SAME, read_encoders
from specpolicy.integrations.lerobot.dit_settings import MultiTaskDiTConfig, flow_options
from specpolicy.integrations.lerobot.processors import AFTER, BEFORE
from specpolicy.integrations.lerobot.settings import ACTION, STATE, WEIGHTS
from specpolicy.integrations.lerobot.statistics import Normalisations, load_tensors, missing, read_processors
from specpolicy.integrations.names import below, unwrapped
from specpolicy.integrations.schedulers import chain_config
from specpolicy.integrations.sizes import count, shape_of
from specpolicy.parsing import parse
from specpolicy.parsing.tensors import prefixed

DENOISER, ENCODER = "noise_predictor.", "observation_encoder."


def read(directory: Path, config: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read the checkpoint of a directory with that config.json.

    Raises:
        SpecpolicyError: a setting that we do not reproduce, or a file that is missing or damaged.
    """
    path = directory / "config.json"
    settings = parse(MultiTaskDiTConfig, config, path)
    weights = unwrapped(load_tensors(directory / WEIGHTS))
    strange = [name for name in weights if not name.startswith((DENOISER, ENCODER))]
    if strange:
        raise SpecpolicyError(f"{directory / WEIGHTS}: the weight '{strange[0]}' is not known")
    denoiser = below(weights, DENOISER)
    sizes, action_dim, cond_dim = dit_options(denoiser, str(directory))
    settings.compare(directory, **sizes)
    if cond_dim % settings.n_obs_steps:
        raise SpecpolicyError(f"{path}: n_obs_steps={settings.n_obs_steps} do not divide a condition of {cond_dim}")
    try:
        inputs, outputs = settings.features("input"), settings.features("output")
        for name, features in ((STATE, inputs), (ACTION, outputs)):
            if name not in features:
                raise SpecpolicyError(f"it lacks the feature '{name}'")
        if list(outputs[ACTION].shape) != [action_dim]:
            raise SpecpolicyError(f"its actions have {list(outputs[ACTION].shape)} numbers, its weights {action_dim}")
    except SpecpolicyError as error:
        raise SpecpolicyError(f"{path}: {error}") from None
    normalisations = _processors(directory)
    frame_dim = cond_dim // settings.n_obs_steps
    encoders = read_encoders(below(weights, ENCODER), settings, normalisations, frame_dim, directory)
    action = SAME if normalisations is None else normalisations.entry(ACTION, outputs[ACTION])
    ours = {
        "network": {"kind": "dit", **sizes, "num_heads": settings.num_heads, "rope_base": settings.rope_base},
        **_process(settings),
        "observation": encoders.observation,
        **encoders.options,
        "action_dim": action_dim,
        "horizon": settings.horizon,
        "n_obs_steps": settings.n_obs_steps,
        "n_action_steps": settings.executed(),
        "normaliser": {**encoders.normaliser, ACTION: action},
        "source": {
            "project": "lerobot",
            "policy": "MultiTaskDiTPolicy",
            "task": settings.repo_id,
            "weights": directory.resolve().name,
            **({} if settings.solver is None else {"sampler": settings.solver}),
            **({} if encoders.lacking is None else {"encoders": f"not read: {encoders.lacking}"}),
            **({} if normalisations is not None else {"actions": "normalised: there are no processors"}),
        },
    }
    wrapped = denoiser if settings.objective == "diffusion" else prefixed(denoiser, "network.")
    return ForeignCheckpoint(ours, wrapped | encoders.weights)


def _process(settings: MultiTaskDiTConfig) -> dict[str, Any]:
    """Return the field `chain`, or `flow` of a policy that matches flows."""
    if settings.objective == "diffusion":
        kind, steps = settings.noise_scheduler_type, settings.num_inference_steps
        return {"chain": chain_config(kind, settings.scheduler(), steps)}
    return {"flow": asdict(flow_options(settings.num_integration_steps, settings.sigma_min))}


def dit_options(weights: Mapping[str, Tensor], where: str) -> tuple[dict[str, Any], int, int]:
    """Return options of our `DiffusionTransformer`, numbers of an action and of a condition, from its weights.

    Heads and the base of the rotation cannot be read from them."""
    hidden, action_dim = shape_of(weights, "input_proj.weight", where)
    embed = shape_of(weights, "time_mlp.1.weight", where)[1]
    features = shape_of(weights, "transformer_blocks.0.adaLN_modulation.1.weight", where)[1]
    options = {
        "hidden_dim": hidden,
        "num_layers": count(weights, r"transformer_blocks\.(\d+)\."),
        "timestep_embed_dim": embed,
        "use_positional_encoding": "pos_embedding" in weights,
        "use_rope": "transformer_blocks.0.attn.qkv_proj.weight" in weights,
    }
    return options, action_dim, features - embed


def _processors(directory: Path) -> Normalisations | None:
    """Return the normalisation of a directory's processors; None without them, as actions then stay normalised."""
    found = read_processors(directory, language=True)
    if found is None and any((directory / name).exists() for name in (BEFORE, AFTER)):
        raise SpecpolicyError(f"{directory}{missing(directory)}")
    return found
