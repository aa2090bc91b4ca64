"""The options of each denoising network, as they are written in yaml and in a checkpoint: `kind` names the network.

Names and defaults are those of the network's constructor. Bounds are far beyond any real network. They keep a damaged
file from requesting more memory than there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_ranges

WIDEST = 65536
LAYERS = 256
HEADS = 4096


@dataclass(frozen=True)
class UnetOptions:
    """Options of `ConditionalUnet1D`."""

    # Ways to condition the denoiser on the observation; the first is the default.
    conditionings: ClassVar[tuple[str, ...]] = ("global", "local", "inpainting")

    kind: Literal["unet"] = "unet"
    diffusion_step_embed_dim: int = 256
    down_dims: Sequence[int] = (256, 512, 1024)
    kernel_size: int = 5
    n_groups: int = 8
    cond_predict_scale: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, diffusion_step_embed_dim=(4, WIDEST), down_dims=(1, WIDEST), kernel_size=(1, 255))
        check_ranges(self, n_groups=(1, WIDEST))
        _check_embedding("diffusion_step_embed_dim", self.diffusion_step_embed_dim)
        if not 1 <= len(self.down_dims) <= 16:
            raise SpecpolicyError(f"down_dims has {len(self.down_dims)} levels: it must have 1 to 16")
        if self.kernel_size % 2 == 0:
            raise SpecpolicyError(f"kernel_size is {self.kernel_size}: it must be odd, or the horizon would grow")
        if any(width % self.n_groups for width in self.down_dims):
            raise SpecpolicyError(f"down_dims {list(self.down_dims)} must be multiples of n_groups={self.n_groups}")
        if self.down_dims[0] % 8:  # the groups of the last block, which are always eight
            raise SpecpolicyError(f"down_dims {list(self.down_dims)} must begin with a multiple of 8")


@dataclass(frozen=True)
class _Attention:
    """Options that the transformers share."""

    n_layer: int = 8
    n_head: int = 4
    n_emb: int = 256

    def __post_init__(self) -> None:
        check_ranges(self, n_layer=(1, LAYERS), n_head=(1, HEADS), n_emb=(4, WIDEST))
        if self.n_emb % self.n_head:
            raise SpecpolicyError(f"n_emb={self.n_emb} must be a multiple of n_head={self.n_head}")


@dataclass(frozen=True)
class _Denoising(_Attention):
    """Options that the transformers over actions share."""

    p_drop_emb: float = 0.0
    p_drop_attn: float = 0.3
    causal_attn: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, p_drop_emb=(0, 0.99), p_drop_attn=(0, 0.99))
        _check_embedding("n_emb", self.n_emb)


@dataclass(frozen=True)
class TransformerOptions(_Denoising):
    """Options of `TransformerForDiffusion`."""

    conditionings: ClassVar[tuple[str, ...]] = ("tokens", "inpainting")

    n_cond_layers: int = 0
    kind: Literal["transformer"] = "transformer"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, n_cond_layers=(0, LAYERS))


@dataclass(frozen=True)
class EncoderTransformerOptions(_Denoising):
    """Options of `EncoderTransformer`."""

    conditionings: ClassVar[tuple[str, ...]] = ("inpainting",)

    kind: Literal["encoder_transformer"] = "encoder_transformer"


@dataclass(frozen=True)
class DiffusionTransformerOptions:
    """Options of `DiffusionTransformer`."""

    conditionings: ClassVar[tuple[str, ...]] = ("global",)

    hidden_dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    timestep_embed_dim: int = 256
    use_positional_encoding: bool = False
    use_rope: bool = True
    rope_base: float = 10000.0
    dropout: float = 0.1
    kind: Literal["dit"] = "dit"

    def __post_init__(self) -> None:
        check_ranges(self, hidden_dim=(4, WIDEST), num_layers=(1, LAYERS), num_heads=(1, HEADS))
        check_ranges(self, timestep_embed_dim=(4, WIDEST), rope_base=(1.0, 1e9), dropout=(0, 0.99))
        _check_embedding("timestep_embed_dim", self.timestep_embed_dim)
        if self.hidden_dim % self.num_heads:
            raise SpecpolicyError(f"hidden_dim={self.hidden_dim} must be a multiple of num_heads={self.num_heads}")
        if self.use_rope and self.hidden_dim // self.num_heads % 2:
            raise SpecpolicyError(
                f"hidden_dim={self.hidden_dim} gives each of num_heads={self.num_heads} an odd number of channels: "
                "use_rope rotates pairs of them"
            )


@dataclass(frozen=True)
class MaskedTransformerOptions(_Attention):
    """Options of `MaskedTransformer`."""

    n_layer: int = 4
    n_emb: int = 128
    dropout: float = 0.1
    kind: Literal["masked_transformer"] = "masked_transformer"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, dropout=(0, 0.99))


DenoiserOptions = UnetOptions | TransformerOptions | EncoderTransformerOptions | DiffusionTransformerOptions


def _check_embedding(name: str, size: int) -> None:
    if size % 2:
        raise SpecpolicyError(f"{name} is {size}: it must be even, half of it are sines and half cosines")
