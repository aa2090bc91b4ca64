"""The config.json of LeRobot's type `multi_task_dit`, of all versions up to 0.6.2, field by field.

As for the type `diffusion`, a field that is not listed here is refused by its name. The fields are those of
`MultiTaskDiTConfig` and `PreTrainedConfig` in the history of huggingface/lerobot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from specpolicy.diffusion import FlowOptions
from specpolicy.integrations.lerobot.settings import Feature, Features, Inert, Mode, check_feature_types
from specpolicy.parsing import check_ranges

TIMES = 400  # of a flow's grid, at least


@dataclass(frozen=True, kw_only=True)
class MultiTaskDiTConfig(Features):
    """Four groups of fields: those that are read, those compared with the weights, those with one allowed value, the
    inert ones."""

    type: Literal["multi_task_dit"]
    input_features: Mapping[str, Feature]
    output_features: Mapping[str, Feature]
    horizon: int = 32
    n_obs_steps: int = 2
    n_action_steps: int = 24
    objective: Literal["diffusion", "flow_matching"] = "diffusion"
    noise_scheduler_type: str = "DDPM"
    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None
    sigma_min: float = 0.0
    num_integration_steps: int = 100
    integration_method: Literal["euler", "rk4"] = "euler"
    num_heads: int = 8
    rope_base: float = 10000.0
    vision_encoder_name: str = "openai/clip-vit-base-patch16"
    text_encoder_name: str = "openai/clip-vit-base-patch16"
    image_resize_shape: tuple[int, int] | None = None
    image_crop_shape: tuple[int, int] | None = (224, 224)
    tokenizer_max_length: int = 77
    repo_id: str | None = None  # recorded as the origin of the policy

    # Read from the weights, and compared.
    hidden_dim: int | None = None
    num_layers: int | None = None
    timestep_embed_dim: int | None = None
    use_positional_encoding: bool | None = None
    use_rope: bool | None = None
    use_separate_rgb_encoder_per_camera: bool | None = None
    use_separate_encoder_per_camera: bool | None = None  # its name in the first version

    # With another value the policy is another one.
    use_peft: Literal[False] | None = None  # its weights would be those of an adapter
    use_relative_actions: Literal[False] | None = None  # its actions would be offsets from the state
    tokenizer_padding_side: Literal["right"] = "right"  # the text tower finds the end of a text by its first padding

    # Modes of normalisation that the processors state again.
    normalization_mapping: Mapping[str, Mode] | None = None
    # Training settings; the crop is random in training alone.
    drop_n_last_frames: Inert = None
    image_crop_is_random: Inert = None
    vision_encoder_lr_multiplier: Inert = None
    dropout: Inert = None
    timestep_sampling_strategy: Inert = None
    timestep_sampling_s: Inert = None
    timestep_sampling_alpha: Inert = None
    timestep_sampling_beta: Inert = None
    do_mask_loss_for_padding: Inert = None
    gradient_checkpointing: Inert = None
    optimizer_lr: Inert = None
    optimizer_betas: Inert = None
    optimizer_eps: Inert = None
    optimizer_weight_decay: Inert = None
    scheduler_name: Inert = None
    scheduler_warmup_steps: Inert = None
    # Whoever makes tokens of texts needs these.
    tokenizer_padding: Inert = None
    tokenizer_truncation: Inert = None

    def __post_init__(self) -> None:
        check_feature_types(self.normalization_mapping or {})
        check_ranges(self, n_obs_steps=(1, 4096), num_heads=(1, 4096), tokenizer_max_length=(1, 4096))
        check_ranges(self, sigma_min=(0, 1), num_integration_steps=(1, 4096))

    @property
    def solver(self) -> str | None:
        """Our name of the solver that its settings name; None for the objective `diffusion`."""
        return None if self.objective == "diffusion" else f"{self.integration_method}-{self.num_integration_steps}"


def flow_options(steps: int, sigma_min: float) -> FlowOptions:
    """Return the options of a policy that matches flows, from its file or in memory, so that a calibration serves both.

    Args:
        steps: `num_integration_steps`.
        sigma_min: of its settings.
    """
    # Shorter chains shall have equal steps, too, so the grid is finer where there are few.
    return FlowOptions(times=steps * max(1, TIMES // steps), steps=steps, sigma_min=sigma_min, time_scale=1.0)
