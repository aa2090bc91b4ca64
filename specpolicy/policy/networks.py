"""The networks that a diffusion policy's configuration names."""

from typing import Any

from torch import nn

from specpolicy.conditioning import Inpainting, LocalCondition, x0_table
from specpolicy.denoisers.flow import flow_denoiser
from specpolicy.denoisers.mip import MIPDenoiser
from specpolicy.denoisers.prefix import Prefix, Prefixed
from specpolicy.diffusion import GaussianChain
from specpolicy.networks import (
    ConditionalUnet1D,
    DiffusionTransformer,
    EncoderTransformer,
    ImageEncoder,
    LowDimEncoder,
    TransformerForDiffusion,
)
from specpolicy.parsing import plain
from specpolicy.policy.config import PolicyConfig

NETWORKS: dict[str, Any] = {
    "unet": ConditionalUnet1D,
    "transformer": TransformerForDiffusion,
    "encoder_transformer": EncoderTransformer,
    "dit": DiffusionTransformer,
}


def make_networks(config: PolicyConfig) -> tuple[LowDimEncoder, nn.Module]:
    """Return the encoder and the bare network."""
    shapes, tokens = dict(config.observation), config.told != "global"
    encoder: LowDimEncoder
    if config.vision is not None or config.language is not None:
        encoder = ImageEncoder(shapes, config.n_obs_steps, config.vision, tokens, config.language)
    else:
        encoder = LowDimEncoder(
            {key: size for key, size in shapes.items() if isinstance(size, int)}, config.n_obs_steps, tokens
        )
    kind, horizon, inpaints = config.network.kind, config.horizon, config.told == "inpainting"
    options = {name: value for name, value in plain(config.network).items() if name != "kind"}
    input_dim = output_dim = config.action_dim + (encoder.frame_dim if inpaints else 0)
    input_dim += bool(config.prefix)  # a channel that marks committed actions
    if kind == "unet":
        options["local_cond_dim"] = encoder.output_dim if config.told == "local" else None
        options["global_cond_dim"] = encoder.output_dim if config.told == "global" else None
    else:
        options |= dict(horizon=horizon)
    if kind == "transformer":
        options |= dict(n_obs_steps=encoder.n_obs_steps, cond_dim=0 if inpaints else encoder.output_dim)
    elif kind == "dit":
        options |= dict(cond_dim=encoder.output_dim)
    network = NETWORKS[kind](input_dim=input_dim, output_dim=output_dim, **options)
    network.check_horizon(horizon)
    return encoder, network


def wrapped(network: nn.Module, config: PolicyConfig, chain: GaussianChain, encoder: LowDimEncoder) -> nn.Module:
    """Return the denoiser that samplers call: the network, or what stands between the chain and it (`is_wrapped`)."""
    if config.flow is not None:
        return flow_denoiser(network, chain, config.flow.time_scale)
    if config.mip is not None:
        return MIPDenoiser(network, config.mip.time, config.mip.time_scale)
    if config.told == "inpainting":
        return Inpainting(network, chain, config.action_dim)
    if config.told == "local":
        return LocalCondition(network)
    if config.prefix:
        prefix = Prefix(config.first, config.prefix, config.action_dim, _seen(encoder))
        return Prefixed(network, prefix, x0_table(chain.process))
    return network


def is_wrapped(config: PolicyConfig) -> bool:
    """Whether the network is the part `network` of the denoiser."""
    return config.chain is None or bool(config.prefix) or config.told in ("inpainting", "local")


def _seen(encoder: LowDimEncoder) -> tuple[int, ...]:
    """Return the shape of one encoded observation."""
    return (encoder.n_obs_steps, encoder.output_dim) if encoder.tokens else (encoder.output_dim,)
