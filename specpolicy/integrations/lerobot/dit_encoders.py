"""The encoders of `multi_task_dit`: state, towers of CLIP for images and for a text, one vector a frame.

The towers' sizes are read from the weights. Their numbers of heads and activations are known by the name of the
published towers that training began with.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.dit_settings import MultiTaskDiTConfig
from specpolicy.integrations.lerobot.settings import ENVIRONMENT, STATE
from specpolicy.integrations.lerobot.statistics import Normalisations
from specpolicy.integrations.names import CLIP, CLIP_IGNORED, renamed
from specpolicy.integrations.sizes import count, shape_of
from specpolicy.parsing import shown
from specpolicy.policy.base import ENCODER

TOKENS = "observation.language.tokens"
CONDITION = "condition"  # what a denoiser that stands alone observes
SAME = {"scale": [1.0], "offset": [0.0]}  # an entry of our normaliser that changes nothing
HEAD = 64  # width of a head of these towers; all have quick GELUs
PUBLISHED = {  # widths of the vision tower and of the text tower
    "openai/clip-vit-base-patch16": (768, 512),
    "openai/clip-vit-base-patch32": (768, 512),
    "openai/clip-vit-large-patch14": (1024, 768),
    "openai/clip-vit-large-patch14-336": (1024, 768),
}


@dataclass(frozen=True)
class Encoders:
    """How observations become a condition.

    Attributes:
        observation: shape by key.
        options: the fields `vision` and `language` of config.json.
        normaliser: entries by key.
        weights: under our names.
        lacking: why they cannot be had; an observation is then the condition itself. None: they are there.
    """

    observation: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    normaliser: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    lacking: str | None = None


def read_encoders(
    weights: Mapping[str, Tensor],
    settings: MultiTaskDiTConfig,
    normalisations: Normalisations | None,
    frame_dim: int,
    directory: Path,
) -> Encoders:
    """Return the encoders, or none, with what they lack.

    Args:
        weights: of `observation_encoder`.
        settings: of config.json.
        normalisations: of the processors.
        frame_dim: numbers of a frame in the condition.
        directory: of the policy, for messages.

    Raises:
        SpecpolicyError: weights that do not belong together.
    """
    where = str(directory)
    inputs = settings.features("input")
    cameras = [key for key, feature in inputs.items() if feature.type == "VISUAL"]
    used = {name: value for name, value in weights.items() if not CLIP_IGNORED.fullmatch(name)}
    ours, strange = renamed(used, CLIP, [str(index) for index in range(len(cameras))])
    if strange:
        raise SpecpolicyError(f"{where}: the weight 'observation_encoder.{strange[0]}' is not known")
    shared = not any(name.startswith("vision_encoders.") for name in weights)
    if normalisations is None:
        return _none(frame_dim, "there are no processors, which normalise what they see")
    text = _tower(ours, f"{ENCODER}language.tower.", where)
    reason = _unknown(settings.text_encoder_name, text["width"], 1)
    vision: dict[str, Any] = {}
    if cameras:
        vision = _vision(ours, settings, [inputs[key].shape for key in cameras], where)
        settings.compare(directory, use_separate_rgb_encoder_per_camera=not shared)
        reason = reason or _unknown(settings.vision_encoder_name, vision["width"], 0)
    if reason:
        return _none(frame_dim, reason)
    vocabulary, _ = shape_of(ours, f"{ENCODER}language.tower.embeddings.token_embedding.weight", where)
    positions, _ = shape_of(ours, f"{ENCODER}language.tower.embeddings.position_embedding.weight", where)
    features, _ = shape_of(ours, f"{ENCODER}language.projection.weight", where)
    language = {**text, "vocabulary": vocabulary, "positions": positions, "features": features, "key": TOKENS}
    own = inputs[STATE].shape[0] + len(cameras) * vision.get("width", 0) + features
    more = inputs[ENVIRONMENT].shape[0] if ENVIRONMENT in inputs else 0
    if frame_dim not in (own, own + more):  # later versions leave the state of the environment out
        raise SpecpolicyError(f"{where}: its encoders give {own} numbers a frame, its denoiser takes {frame_dim}")
    keys = [STATE, *cameras, *([ENVIRONMENT] if more and frame_dim != own else [])]
    outer = {key: normalisations.outer_name(key) for key in keys}
    length = min(normalisations.text_length or settings.tokenizer_max_length, positions)
    return Encoders(
        {outer[key]: list(inputs[key].shape) if key in cameras else inputs[key].shape[0] for key in keys}
        | {TOKENS: length},
        {"language": language} | ({"vision": {**vision, "shared": shared}} if cameras else {}),
        {outer[key]: normalisations.entry(key, inputs[key]) for key in keys} | {TOKENS: SAME},
        ours,
    )


def _none(frame_dim: int, lacking: str) -> Encoders:
    """Return what observes conditions of `frame_dim` numbers a frame."""
    return Encoders({CONDITION: frame_dim}, normaliser={CONDITION: SAME}, lacking=lacking)


def _tower(weights: Mapping[str, Tensor], prefix: str, where: str) -> dict[str, Any]:
    """Return `TowerOptions` of the tower at `prefix`."""
    hidden, width = shape_of(weights, f"{prefix}encoder.layers.0.mlp.fc1.weight", where)
    layers = count(weights, re.escape(prefix) + r"encoder\.layers\.(\d+)\.")
    return {"width": width, "layers": layers, "heads": max(width // HEAD, 1), "hidden": hidden}


def _vision(
    weights: Mapping[str, Tensor], settings: MultiTaskDiTConfig, shapes: list[Any], where: str
) -> dict[str, Any]:
    """Return `ClipOptions` for images of these shapes."""
    prefix = f"{ENCODER}vision.0.tower."
    patch = shape_of(weights, f"{prefix}embeddings.patch_embedding.weight", where)[-1]
    tokens, _ = shape_of(weights, f"{prefix}embeddings.position_embedding.weight", where)
    resize, crop = settings.image_resize_shape, settings.image_crop_shape
    sizes = [tuple(resize or shape[1:]) for shape in shapes]
    if crop is not None and any(crop[0] > height or crop[1] > width for height, width in sizes):
        crop = None  # as LeRobot does
    return {
        **_tower(weights, prefix, where),
        "kind": "clip",
        "patch": patch,
        "size": patch * math.isqrt(max(tokens - 1, 1)),
        "resize": None if resize is None else list(resize),
        "crop": None if crop is None else list(crop),
        "crop_offset": "round",
    }


def _unknown(name: str, width: int, which: int) -> str | None:
    """Return why a tower of that name and width cannot be run; None if it can."""
    if name not in PUBLISHED:
        return f"the numbers of heads of {shown(name)} are not known: known are {', '.join(PUBLISHED)}"
    if PUBLISHED[name][which] != width:
        return f"a tower of width {width} is not {name}, whose width is {PUBLISHED[name][which]}"
    return None
