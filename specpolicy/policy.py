"""DiffusionPolicy: from an observation history to a chunk of actions."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from specpolicy.conditioning import Inpainting, LocalCondition
from specpolicy.diffusion import GaussianChain
from specpolicy.draft_models import DraftModels
from specpolicy.engines import Engine, make_engine
from specpolicy.errors import SpecpolicyError
from specpolicy.networks import (
    ConditionalUnet1D,
    EncoderTransformer,
    ImageEncoder,
    LowDimEncoder,
    TransformerForDiffusion,
    VisionOptions,
)
from specpolicy.normaliser import Normaliser
from specpolicy.policy_base import Observation, Policy
from specpolicy.rotations import CONVERSIONS, convert_rotations
from specpolicy.samplers import Calibration, Sample, Sampler, make_sampler, sample
from specpolicy.samplers.base import Generators

NETWORKS = {
    "unet": ConditionalUnet1D,
    "transformer": TransformerForDiffusion,
    "encoder_transformer": EncoderTransformer,
}
# How the denoiser is told the observation. The first one of a network is its default.
CONDITIONINGS = {
    "unet": ("global", "local", "inpainting"),
    "transformer": ("tokens", "inpainting"),
    "encoder_transformer": ("inpainting",),
}


class DiffusionPolicy(Policy):
    """Normaliser, encoder, denoiser, chain and a default sampler, put together."""

    def __init__(
        self,
        denoiser: nn.Module,
        chain: GaussianChain,
        encoder: LowDimEncoder,
        normaliser: Normaliser,
        *,
        action_dim: int,
        horizon: int,
        n_action_steps: int,
        first_action: int | None = None,
        rotations: Mapping[int, str] | None = None,
        config: dict[str, Any] | None = None,
    ):
        """`action_dim` is that of the network. `rotations`: {index: name}, see `specpolicy.rotations`."""
        super().__init__(
            denoiser,
            encoder,
            normaliser,
            horizon=horizon,
            n_action_steps=n_action_steps,
            first_action=first_action,
            config=config,
        )
        self.chain = chain
        self.rotations = dict(rotations or {})
        self.engine: Engine | None = None
        self.calibration: Calibration | None = None
        self.draft_models = DraftModels()
        self._network_action_dim = action_dim

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DiffusionPolicy":
        """Build an untrained policy from the layout of config.json (see `specpolicy.checkpoints`)."""
        kind = config["network"]["kind"]
        if kind not in NETWORKS:
            raise SpecpolicyError(f"unknown network kind '{kind}': use one of {', '.join(NETWORKS)}")
        conditioning = config.get("conditioning", CONDITIONINGS[kind][0])
        if conditioning not in CONDITIONINGS[kind]:
            raise SpecpolicyError(
                f"a {kind} network has no conditioning '{conditioning}': use one of {', '.join(CONDITIONINGS[kind])}"
            )
        rotations = {int(start): name for start, name in config.get("rotations", {}).items()}  # JSON's keys are text
        if not set(rotations.values()) <= set(CONVERSIONS):
            raise SpecpolicyError(f"unknown conversion in rotations {rotations}: use one of {', '.join(CONVERSIONS)}")
        encoder = _make_encoder(config, tokens=conditioning != "global")
        chain = make_chain(config["chain"])
        denoiser = _make_denoiser(config, conditioning, encoder, chain)
        return cls(
            denoiser,
            chain,
            encoder,
            Normaliser.from_config(config["normaliser"]),
            action_dim=config["action_dim"],
            horizon=config["horizon"],
            n_action_steps=config["n_action_steps"],
            first_action=config.get("first_action"),
            rotations=rotations,
            config=config,
        ).eval()

    @property
    def action_dim(self) -> int:
        """Dimension of an action in the environment's units."""
        return self._network_action_dim - 3 * len(self.rotations)

    @property
    def sample_shape(self) -> tuple[int, int]:
        """(H, D) of what a sampler draws for one chunk: a policy that inpaints draws observations, too."""
        inpaints = isinstance(self.denoiser, Inpainting)
        return self.horizon, self._network_action_dim + (self.encoder.frame_dim if inpaints else 0)

    @torch.inference_mode()
    def predict(
        self,
        observation: Observation,
        sampler: str | Sampler = "ddpm",
        generator: Generators = None,
        return_states: bool = False,
    ) -> Sample:
        """Draw one action chunk per observation: `actions` (B, H, D) in the environment's units.

        observation: {key: (B, To, D_key)}, or (To, D_key) for a batch of one: arrays or tensors, To = `n_obs_steps`
            frames, the newest last, in the environment's units.
        sampler: a name such as "recycled", or what `specpolicy.make_sampler` made. "ddpm" walks the policy's own
            chain, which is a DDIM chain where the policy came with a DDIM scheduler.
        generator: one, or one per row.
        return_states: also `states` (K+1, B, *sample_shape), which stay in normalised units.

        Raises:
            SpecpolicyError: an observation that does not fit, a sampler that the policy's chain cannot be walked with
                or that lacks a model, a network that returns what is not finite.
        """
        cond = self.encode(observation)
        shape = (len(cond), *self.sample_shape)
        sampler = self.equip(sampler)
        out = sample(self.engine or self.denoiser, self.chain, shape, cond, sampler, generator, return_states)
        actions = self.normaliser.unnormalise("action", out.actions[..., : self._network_action_dim])
        out.actions = convert_rotations(actions, self.rotations) if self.rotations else actions
        return out

    def equip(self, sampler: str | Sampler) -> Sampler:
        """The sampler, by name or made, with what it lacks and the policy has: a calibration, a draft model."""
        made: Any = make_sampler(sampler) if isinstance(sampler, str) else sampler
        wanted: dict[str, Any] = {}
        if getattr(made, "wants_calibration", False):
            wanted["calibration"] = self.calibration
        drafter = getattr(made, "drafter", None)
        if drafter == "independent" and made.draft_denoiser is None:
            wanted["draft_denoiser"] = self.draft_models.to(self.device).denoiser
        if drafter == "corrected" and made.head is None:
            wanted["head"] = self.draft_models.to(self.device).head
        return dataclasses.replace(made, **wanted) if wanted else made

    def with_engine(self, name: str, max_rows: int | None = None, precision: str = "float32") -> "DiffusionPolicy":
        """The same policy, weights shared, whose `predict` runs the network on an engine (see `make_engine`).

        It stays on the device it is on. `max_rows`: rows up to which a call is one call of the network; by default
        the steps of the chain, which is what one chunk needs at most.
        """
        nothing = {key: torch.zeros(self._frame_shape(key)) for key in self.observation_keys}
        policy = copy.copy(self)
        policy.engine = make_engine(
            name,
            self.denoiser,
            self.sample_shape,
            self.encode(nothing).shape[1:],
            max_rows or len(self.chain),
            precision,
            self.chain.process.steps,
        )
        return policy


def _make_encoder(config: Mapping[str, Any], tokens: bool) -> LowDimEncoder:
    if "vision" in config:
        try:
            options = VisionOptions(**config["vision"])
        except TypeError as error:
            raise SpecpolicyError(f"bad option for the image encoder: {error}") from None
        return ImageEncoder(config["observation"], config["n_obs_steps"], options, tokens)
    return LowDimEncoder(config["observation"], config["n_obs_steps"], tokens)


def make_chain(config: Mapping[str, Any]) -> GaussianChain:
    """The chain of config.json: options of `GaussianChain.ddpm`; and `ddim`, {eta, reuse_epsilon}, for a DDIM chain."""
    options = dict(config)
    ddim = options.pop("ddim", None)
    chain = GaussianChain.ddpm(**options)
    return chain if ddim is None else chain.with_ddim(len(chain), **ddim)


def _make_denoiser(
    config: Mapping[str, Any], conditioning: str, encoder: LowDimEncoder, chain: GaussianChain
) -> nn.Module:
    kind, action_dim, horizon = config["network"]["kind"], config["action_dim"], config["horizon"]
    options = {name: value for name, value in config["network"].items() if name != "kind"}
    inpaints = conditioning == "inpainting"
    input_dim = action_dim + (encoder.frame_dim if inpaints else 0)
    if kind == "unet":
        options["local_cond_dim"] = encoder.output_dim if conditioning == "local" else None
        options["global_cond_dim"] = encoder.output_dim if conditioning == "global" else None
    else:
        options |= dict(output_dim=input_dim, horizon=horizon)
    if kind == "transformer":
        options |= dict(n_obs_steps=encoder.n_obs_steps, cond_dim=0 if inpaints else encoder.output_dim)
    try:
        network = NETWORKS[kind](input_dim=input_dim, **options)
    except TypeError as error:
        raise SpecpolicyError(f"bad option for the {kind} network: {error}") from None
    network.check_horizon(horizon)
    if inpaints:
        return Inpainting(network, chain, action_dim)
    return LocalCondition(network) if conditioning == "local" else network
