"""Denoising networks and observation encoders. They do not know chains, environments or time."""

from specpolicy.networks.dit import DiffusionTransformer
from specpolicy.networks.encoders import ImageEncoder, LowDimEncoder
from specpolicy.networks.masked_transformer import MaskedTransformer
from specpolicy.networks.options import (
    DenoiserOptions,
    DiffusionTransformerOptions,
    EncoderTransformerOptions,
    MaskedTransformerOptions,
    TransformerOptions,
    UnetOptions,
)
from specpolicy.networks.transformer import TransformerForDiffusion
from specpolicy.networks.transformer_encoder import EncoderTransformer
from specpolicy.networks.unet import ConditionalUnet1D
from specpolicy.networks.vision_options import (
    ClipOptions,
    LanguageOptions,
    ResNetOptions,
    SmallOptions,
    TorchvisionOptions,
    VisionOptions,
)

__all__ = [
    "ClipOptions",
    "ConditionalUnet1D",
    "DenoiserOptions",
    "DiffusionTransformer",
    "DiffusionTransformerOptions",
    "EncoderTransformer",
    "EncoderTransformerOptions",
    "ImageEncoder",
    "LanguageOptions",
    "LowDimEncoder",
    "MaskedTransformer",
    "MaskedTransformerOptions",
    "ResNetOptions",
    "SmallOptions",
    "TorchvisionOptions",
    "TransformerForDiffusion",
    "TransformerOptions",
    "UnetOptions",
    "VisionOptions",
]
