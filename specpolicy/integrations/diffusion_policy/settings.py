"""`cfg.policy` of Diffusion Policy: the arguments of its policies' constructors, one dataclass a policy.

An argument that the original does not have is refused by its name, and so is one that we do not reproduce. The original
passes only `eta` and `use_clipped_model_output` on to the scheduler's `step`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specpolicy.errors import SpecpolicyError

Inert = Any  # affects training only, or follows from the weights and other settings


@dataclass(frozen=True, kw_only=True)
class Unet:
    """`ConditionalUnet1D`. Its sizes are read from the weights, and compared."""

    _target_: Inert = None
    input_dim: Inert = None
    local_cond_dim: Inert = None
    global_cond_dim: Inert = None
    n_groups: int = 8
    diffusion_step_embed_dim: int | None = None
    down_dims: Sequence[int] | None = None
    kernel_size: int | None = None
    cond_predict_scale: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """`TransformerForDiffusion`, with its constructor's defaults."""

    _target_: Inert = None
    input_dim: Inert = None
    output_dim: Inert = None
    cond_dim: Inert = None
    horizon: Inert = None
    n_obs_steps: Inert = None
    obs_as_cond: Inert = None  # follows from cond_dim
    p_drop_emb: Inert = None
    p_drop_attn: Inert = None
    n_layer: int = 12
    n_head: int = 12
    n_cond_layers: int = 0
    time_as_cond: bool = True
    n_emb: int | None = None
    causal_attn: bool | None = None


@dataclass(frozen=True)
class ObservationMeta:
    """An observation of a policy with images."""

    shape: Sequence[int]
    type: str = "low_dim"


@dataclass(frozen=True)
class ActionMeta:
    """The action of a policy with images."""

    shape: tuple[int]


@dataclass(frozen=True)
class ShapeMeta:
    """Observations and actions of a policy with images; the order of the keys is that of the condition."""

    obs: Mapping[str, ObservationMeta]
    action: ActionMeta

    def __post_init__(self) -> None:
        for key, meta in self.obs.items():
            if (meta.type, len(meta.shape)) not in (("rgb", 3), ("low_dim", 1)):
                raise SpecpolicyError(
                    f"the observation '{key}' ({meta.type}, shape {list(meta.shape)}) is not supported"
                )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Arguments that all policies have."""

    _target_: str
    noise_scheduler: Mapping[str, Any]
    horizon: int
    n_action_steps: int
    n_obs_steps: int
    num_inference_steps: int | None = None
    eta: float = 0.0
    use_clipped_model_output: bool = False


@dataclass(frozen=True, kw_only=True)
class LowdimPolicy(Policy):
    """Observations are vectors."""

    obs_dim: int
    action_dim: int
    pred_action_steps_only: bool = False


@dataclass(frozen=True, kw_only=True)
class DiffusionUnetLowdimPolicy(LowdimPolicy):
    """A U-Net over actions, or over actions and observations."""

    model: Unet
    obs_as_local_cond: bool = False
    obs_as_global_cond: bool = False
    oa_step_convention: bool = False

    def __post_init__(self) -> None:
        if self.obs_as_local_cond and self.obs_as_global_cond:
            raise SpecpolicyError("obs_as_local_cond and obs_as_global_cond cannot both be true")
        if self.pred_action_steps_only and not self.obs_as_global_cond:
            raise SpecpolicyError("pred_action_steps_only needs obs_as_global_cond")


@dataclass(frozen=True, kw_only=True)
class DiffusionTransformerLowdimPolicy(LowdimPolicy):
    """A transformer over actions, or over actions and observations."""

    model: Transformer
    obs_as_cond: bool = False

    def __post_init__(self) -> None:
        if self.pred_action_steps_only and not self.obs_as_cond:
            raise SpecpolicyError("pred_action_steps_only needs obs_as_cond")


@dataclass(frozen=True, kw_only=True)
class HybridImagePolicy(Policy):
    """Observations are images and vectors."""

    shape_meta: ShapeMeta
    crop_shape: tuple[int, int] | None = (76, 76)
    obs_encoder_group_norm: bool | None = None
    eval_fixed_crop: bool = False


@dataclass(frozen=True, kw_only=True)
class DiffusionUnetHybridImagePolicy(HybridImagePolicy):
    """A U-Net."""

    obs_as_global_cond: bool = True
    n_groups: int = 8
    diffusion_step_embed_dim: int | None = None
    down_dims: Sequence[int] | None = None
    kernel_size: int | None = None
    cond_predict_scale: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DiffusionTransformerHybridImagePolicy(HybridImagePolicy):
    """A transformer."""

    obs_as_cond: bool = True
    pred_action_steps_only: bool = False
    p_drop_emb: Inert = None
    p_drop_attn: Inert = None
    n_layer: int = 8
    n_head: int = 4
    n_cond_layers: int = 0
    time_as_cond: bool = True
    n_emb: int | None = None
    causal_attn: bool | None = None

    def __post_init__(self) -> None:
        if self.pred_action_steps_only and not self.obs_as_cond:
            raise SpecpolicyError("pred_action_steps_only needs obs_as_cond")


POLICIES: dict[str, type[Policy]] = {
    kind.__name__: kind
    for kind in (
        DiffusionUnetLowdimPolicy,
        DiffusionTransformerLowdimPolicy,
        DiffusionUnetHybridImagePolicy,
        DiffusionTransformerHybridImagePolicy,
    )
}
# Outside of cfg.policy, but they change the meaning of a policy's actions: only these values.
ELSEWHERE: dict[str, tuple[Any, ...]] = {
    "n_latency_steps": (0, None),  # otherwise its actions begin that many steps later, or its observations are that old
    "task.dataset.delta_action": (False, None),  # otherwise its actions are differences from the previous action
}
