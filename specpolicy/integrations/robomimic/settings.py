"""The configuration inside a robomimic checkpoint, as far as it affects a policy's actions.

`algo` and the used parts of `observation` and of `train.action_config` are read key by key. A key that robomimic does
not have is refused by its name, and so is a value that we do not reproduce. `experiment`, `meta` and the rest of
`train` concern training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

Inert = Any
CONTENT = (  # of the file
    "model",
    "config",
    "algo_name",
    "env_metadata",
    "shape_metadata",
    "variable_state",
    "obs_normalization_stats",
    "action_normalization_stats",
)
# They draw random numbers in training alone.
WITHOUT_EFFECT = (None, "ColorRandomizer", "GaussianNoiseRandomizer")


@dataclass(frozen=True)
class Horizon:
    """Numbers of frames seen, of actions executed, and of actions planned."""

    observation_horizon: int
    action_horizon: int
    prediction_horizon: int


@dataclass(frozen=True)
class Unet:
    """Sizes of the U-Net. robomimic passes none of them to its network."""

    enabled: bool = True
    diffusion_step_embed_dim: Inert = None
    down_dims: Inert = None
    kernel_size: Inert = None
    n_groups: Inert = None


@dataclass(frozen=True)
class Scheduler:
    """robomimic's arguments for its `DDPMScheduler`, and the number of steps."""

    num_train_timesteps: int = 1000
    num_inference_timesteps: int | None = None
    beta_schedule: str = "linear"
    clip_sample: bool = True
    prediction_type: str = "epsilon"
    enabled: bool = False


@dataclass(frozen=True)
class DdimScheduler(Scheduler):
    """More arguments, for its `DDIMScheduler`."""

    set_alpha_to_one: bool = True
    steps_offset: int = 0


@dataclass(frozen=True)
class Algo:
    """`config.algo` of the algorithm diffusion_policy."""

    horizon: Horizon
    ddpm: Scheduler = field(default_factory=Scheduler)
    ddim: DdimScheduler = field(default_factory=DdimScheduler)
    unet: Unet = field(default_factory=Unet)
    transformer: Mapping[str, Any] = field(default_factory=dict)
    language_conditioned: Literal[False] | None = None  # of the branch for RoboCasa
    ema: Inert = None  # the weights show whether averaged ones exist
    optim_params: Inert = None

    def __post_init__(self) -> None:
        if not self.unet.enabled:
            raise SpecpolicyError("unet.enabled is false: it is no U-Net, a diffusion transformer perhaps")
        if not self.ddpm.enabled and not self.ddim.enabled:
            raise SpecpolicyError("neither algo.ddpm nor algo.ddim is enabled in its configuration")


@dataclass(frozen=True)
class Backbone:
    """Arguments of a camera's backbone. robomimic passes each class its own; the others belong to other classes."""

    pretrained: Inert = None
    input_coord_conv: Literal[False] | None = None
    input_channel: Inert = None
    freeze: Inert = None
    r3m_model_class: Inert = None
    mvp_model_class: Inert = None


@dataclass(frozen=True)
class Pool:
    """The spatial softmax; its temperature is among the weights, its noise is drawn in training alone."""

    num_kp: int | None = None
    output_variance: Literal[False] | None = None
    learnable_temperature: Inert = None
    temperature: Inert = None
    noise_std: Inert = None
    input_shape: Inert = None


@dataclass(frozen=True)
class Core:
    """`core_kwargs` of a camera's encoder."""

    backbone_class: Literal["ResNet18Conv"] = "ResNet18Conv"
    pool_class: Literal["SpatialSoftmax"] = "SpatialSoftmax"
    backbone_kwargs: Backbone | None = None
    pool_kwargs: Pool | None = None
    flatten: Literal[True] = True
    feature_dimension: int | Literal["default"] | None = "default"  # null for none, which is not robomimic's default
    input_shape: Inert = None


@dataclass(frozen=True)
class LowDimEncoder:
    """Vectors, unchanged."""

    core_class: str | None = None
    core_kwargs: Inert = None
    obs_randomizer_class: str | Sequence[str | None] | None = None
    obs_randomizer_kwargs: Inert = None

    def __post_init__(self) -> None:
        if self.core_class is not None:
            raise SpecpolicyError("it encodes its low-dimensional observations by a network, which is not supported")
        for name in several(self.obs_randomizer_class):
            if name not in WITHOUT_EFFECT:
                raise SpecpolicyError(f"the randomiser {shown(name)} of low-dimensional observations is not supported")


@dataclass(frozen=True)
class Crop:
    """`CropRandomizer`; in evaluation it takes the middle."""

    crop_height: int = 76
    crop_width: int = 76
    num_crops: Inert = None
    pos_enc: Literal[False] | None = None
    input_shape: Inert = None


@dataclass(frozen=True)
class RgbEncoder:
    """The encoder of images."""

    core_class: Literal["VisualCore"] = "VisualCore"
    core_kwargs: Core = field(default_factory=Core)
    obs_randomizer_class: str | Sequence[str | None] | None = None
    obs_randomizer_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class ActionFormat:
    """One part of the action. Its normalisation is in the statistics; rot_6d is converted at run time."""

    normalization: Inert = None
    format: Literal["rot_6d", "rot_axis_angle", "rot_euler"] | None = None
    convert_at_runtime: str | None = None


def several(value: Any) -> Sequence[Any]:
    """Return one value or several as a sequence."""
    return value if isinstance(value, list | tuple) else [value]


def check_content(content: Mapping[str, Any], path: Path) -> None:
    """Raise for a part of the file that robomimic does not write."""
    strange = [name for name in content if name not in CONTENT]
    if strange:
        raise SpecpolicyError(f"{path} holds {shown(strange[0])}, which robomimic does not write")
