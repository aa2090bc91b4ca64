"""The config.json of LeRobot's type `diffusion`, of all versions up to 0.6.2, field by field, and what the other types
share with it.

A field that is not listed here is refused by its name, because it may change the meaning of actions. So is a value that
we do not reproduce. The fields are those of `DiffusionConfig` and `PreTrainedConfig` in the history of
huggingface/lerobot, and of proposals for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_choice, shown

WEIGHTS = "model.safetensors"
STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
FeatureType = Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
Mode = Literal["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"]
Inert = Any  # affects training, storage or speed, not the actions


@dataclass(frozen=True)
class Feature:
    """An observation or the action."""

    type: FeatureType
    shape: Sequence[int]


SCHEDULER = (  # LeRobot's arguments for its scheduler
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "clip_sample",
    "clip_sample_range",
    "prediction_type",
)


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the settings of all types have: the features of a policy, sizes that its weights show as well, and inert
    fields."""

    horizon: int
    n_obs_steps: int
    n_action_steps: int
    # Precision and speed. Here it runs in float32, with any engine.
    device: Inert = None
    use_amp: Inert = None
    compile_model: Inert = None
    compile_mode: Inert = None
    # Storage.
    push_to_hub: Inert = None
    private: Inert = None
    tags: Inert = None
    license: Inert = None
    pretrained_path: Inert = None
    pretrained_revision: Inert = None

    def scheduler(self) -> dict[str, Any]:
        """Return the arguments of the scheduler."""
        return {name: getattr(self, name) for name in SCHEDULER}

    def executed(self) -> int:
        """Return how many actions of a chunk are executed: a plan has no more after its frames, and LeRobot then
        executes fewer."""
        return min(self.n_action_steps, self.horizon - self.n_obs_steps + 1)

    def features(self, side: Literal["input", "output"]) -> dict[str, Feature]:
        """Return inputs or outputs, checked; the first versions stored shapes alone."""
        shapes = getattr(self, f"{side}_shapes", None)
        found = getattr(self, f"{side}_features")
        if shapes is not None and found is not None:
            raise SpecpolicyError(f"it has both {side}_shapes and {side}_features: one of them must go")
        if shapes is not None:
            found = {key: Feature(_type(key), shape) for key, shape in shapes.items()}
        if not found:
            raise SpecpolicyError(f"it has no {side}_features")
        for key, feature in found.items():
            needed = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}.get(key, feature.type)
            sides = 3 if feature.type == "VISUAL" else 1
            used = key in (STATE, ENVIRONMENT, ACTION) or feature.type in ("VISUAL", "ENV")
            if feature.type != needed or (feature.type == "ENV" and key != ENVIRONMENT):
                raise SpecpolicyError(f"its feature {shown(key)} is of type {feature.type}, which is not supported")
            if used and (len(feature.shape) != sides or min(feature.shape) < 1):
                raise SpecpolicyError(f"its feature {shown(key)} has the shape {list(feature.shape)}")
        return dict(found)

    def compare(self, directory: Path, **found: Any) -> None:
        """Raise if a field contradicts the weights."""
        for name, value in found.items():
            said = getattr(self, name)
            said = list(said) if isinstance(said, Sequence) and not isinstance(said, str) else said
            if said is not None and said != value:
                raise SpecpolicyError(f"{directory}: its config.json says {name}={said}, its weights have {value}")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(Features):
    """Four groups of fields: those that are read, those compared with the weights, those with one allowed value, the
    inert ones."""

    horizon: int
    n_obs_steps: int
    n_action_steps: int
    type: Literal["diffusion"] = "diffusion"  # missing in the first versions
    input_features: Mapping[str, Feature] | None = None
    output_features: Mapping[str, Feature] | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = None  # of the first versions
    output_shapes: Mapping[str, Sequence[int]] | None = None
    normalization_mapping: Mapping[str, Mode] | None = None
    input_normalization_modes: Mapping[str, str] | None = None
    output_normalization_modes: Mapping[str, str] | None = None
    resize_shape: tuple[int, int] | None = None
    crop_shape: tuple[int, int] | None = None
    crop_ratio: float = 1.0
    n_groups: int = 8
    noise_scheduler_type: str = "DDPM"
    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None
    repo_id: str | None = None  # recorded as the origin of the policy

    # Read from the weights, and compared.
    down_dims: Sequence[int] | None = None
    kernel_size: int | None = None
    diffusion_step_embed_dim: int | None = None
    use_film_scale_modulation: bool | None = None
    vision_backbone: str | None = None
    use_group_norm: bool | None = None
    spatial_softmax_num_keypoints: int | None = None
    use_separate_rgb_encoder_per_camera: bool | None = None

    # With another value the policy is another one.
    use_peft: Literal[False] | None = None  # its weights would be those of an adapter
    use_ema: Literal[False] | None = None  # of April 2024: averaged weights under separate names
    use_relative_actions: Literal[False] | None = None  # its actions would be offsets from the state
    variance_type: Literal["fixed_small"] | None = None

    # The relative joints, if any.
    relative_exclude_joints: Inert = None
    action_feature_names: Inert = None
    # Training settings; the crop is random in training alone.
    drop_n_last_frames: Inert = None
    crop_is_random: Inert = None
    pretrained_backbone_weights: Inert = None
    use_pretrained_backbone: Inert = None
    do_mask_loss_for_padding: Inert = None
    gradient_checkpointing: Inert = None
    optimizer_lr: Inert = None
    optimizer_betas: Inert = None
    optimizer_eps: Inert = None
    optimizer_weight_decay: Inert = None
    scheduler_name: Inert = None
    scheduler_warmup_steps: Inert = None
    batch_size: Inert = None
    grad_clip_norm: Inert = None
    lr: Inert = None
    lr_scheduler: Inert = None
    lr_warmup_steps: Inert = None
    adam_betas: Inert = None
    adam_eps: Inert = None
    adam_weight_decay: Inert = None
    utd: Inert = None
    ema_update_after_step: Inert = None
    ema_min_alpha: Inert = None
    ema_max_alpha: Inert = None
    ema_inv_gamma: Inert = None
    ema_power: Inert = None

    def __post_init__(self) -> None:
        check_feature_types(self.normalization_mapping or {})


def check_feature_types(modes: Mapping[str, Mode]) -> None:
    """Raise if a mapping from feature types to modes has an unknown type."""
    for name in modes:
        check_choice("type of features", name, get_args(FeatureType))


def _type(key: str) -> FeatureType:
    """Return the type that a name of the first versions implies."""
    if key.startswith("observation.image"):
        return "VISUAL"
    return {ENVIRONMENT: "ENV", ACTION: "ACTION"}.get(key, "STATE")  # type: ignore[return-value]
