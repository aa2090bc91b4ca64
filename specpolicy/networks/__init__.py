"""Denoising networks and observation encoders. They know nothing of chains, environments or time budgets."""

from specpolicy.networks.encoders import LowDimEncoder
from specpolicy.networks.transformer import TransformerForDiffusion
from specpolicy.networks.unet import ConditionalUnet1D

__all__ = ["ConditionalUnet1D", "LowDimEncoder", "TransformerForDiffusion"]
