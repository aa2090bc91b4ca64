"""DiffusionPolicy: from an observation history to a chunk of actions."""

import copy
import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.conditioning import Inpainting, LocalCondition
from specpolicy.diffusion import GaussianChain
from specpolicy.draft_models import DraftModels
from specpolicy.engines import Engine, make_engine
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.networks import (
    ConditionalUnet1D,
    EncoderTransformer,
    ImageEncoder,
    LowDimEncoder,
    TransformerForDiffusion,
)
from specpolicy.normaliser import Normaliser
from specpolicy.parsing import plain
from specpolicy.parsing.tensors import prefixed, without_memory
from specpolicy.policy_base import ENCODER, Observation, Policy
from specpolicy.policy_config import PolicyConfig
from specpolicy.rotations import convert_rotations
from specpolicy.samplers import BoundSampler, Calibration, Sample, Sampler, Setting, make_sampler
from specpolicy.samplers.base import Generators

MOST_BOUND = 16  # samplers that are kept bound; the oldest one goes
NETWORKS: dict[str, Any] = {
    "unet": ConditionalUnet1D,
    "transformer": TransformerForDiffusion,
    "encoder_transformer": EncoderTransformer,
}


class DiffusionPolicy(Policy):
    """Normaliser, encoder, denoiser, chain and a default sampler, put together."""

    def __init__(
        self,
        denoiser: nn.Module,
        chain: GaussianChain,
        encoder: LowDimEncoder,
        normaliser: Normaliser,
        config: PolicyConfig,
    ):
        super().__init__(denoiser, encoder, normaliser, config)
        self.chain = chain
        self.rotations = dict(config.rotations)
        self.engine: Engine | None = None
        self.calibration: Calibration | None = None
        self.draft_models = DraftModels()
        self._network_action_dim = config.action_dim
        # Samplers that were used, with what they are bound to.
        self._bound: list[tuple[str | Sampler, torch.device, tuple[Any, ...], BoundSampler]] = []

    @classmethod
    def from_config(cls, config: PolicyConfig | Mapping[str, Any]) -> "DiffusionPolicy":
        """Build an untrained policy from what config.json says (see `PolicyConfig`).

        Raises:
            SpecpolicyError: a configuration that is none, or not one of a diffusion policy.
        """
        config = PolicyConfig.parse(config)
        if config.chain is None:
            raise SpecpolicyError("a diffusion policy needs a chain; this is a policy of action tokens")
        encoder, network = _make_networks(config)
        chain = config.chain.make()
        denoiser = network
        if config.told == "inpainting":
            denoiser = Inpainting(network, chain, config.action_dim)
        elif config.told == "local":
            denoiser = LocalCondition(network)
        return cls(denoiser, chain, encoder, Normaliser.from_config(config.normaliser), config).eval()

    @staticmethod
    def expected_weights(config: PolicyConfig) -> dict[str, Tensor]:
        """Tensors without memory, of the names, shapes and kinds that the weights of such a policy have."""
        with without_memory():
            encoder, network = _make_networks(config)
        wrapped = "network." if config.told in ("inpainting", "local") else ""
        return prefixed(network.state_dict(), wrapped) | prefixed(encoder.state_dict(), ENCODER)

    @property
    def action_dim(self) -> int:
        """Dimension of an action in the environment's units."""
        return self._network_action_dim - 3 * len(self.rotations)

    @property
    def sample_shape(self) -> tuple[int, int]:
        """(H, D) of what a sampler draws for one chunk: a policy that inpaints draws observations, too."""
        inpaints = isinstance(self.denoiser, Inpainting)
        return self.horizon, self._network_action_dim + (self.encoder.frame_dim if inpaints else 0)

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
        return self.draw(self.bound(sampler), observation, generator, return_states)

    def sampler(
        self, sampler: str | Sampler | None = None, *, engine: str | None = None, **options: Any
    ) -> "PolicySampler":
        """A sampler that is settled for this policy: `sampler(observation, generator=g)` draws and looks nothing up.

        sampler: a name, such as "recycled", with its `options`, or what `specpolicy.make_sampler` made; None:
            `best_sampler`. engine: runs the network, see `make_engine`; None: as the policy does.

        Raises:
            SpecpolicyError: no such sampler, option or engine; a sampler that the policy's chain cannot be walked with
                or that lacks a model.
        """
        policy = self if engine is None else self.with_engine(engine)
        if not isinstance(sampler, str | None):
            if options:
                raise SpecpolicyError(f"sampler={sampler}: options are given with a name, this one has its own")
            return PolicySampler(policy, policy.bound(sampler))
        return PolicySampler(policy, policy.bound(make_sampler(sampler or self.best_sampler, **options)))

    @property
    def best_sampler(self) -> str:
        """The exact sampler that is quickest: "recycled", or "ddpm" where the chain adds no noise to speculate on."""
        return "recycled" if bool((self.chain.sigma[:-1] > 0).all()) else "ddpm"

    @torch.inference_mode()
    def draw(self, bound: BoundSampler, observation: Observation, generator: Generators, return_states: bool) -> Sample:
        """See `predict`, for a sampler that is bound to this policy."""
        cond = self.encode(observation)
        out = bound(len(cond), cond, generator, return_states)
        actions = self.normaliser.unnormalise("action", out.actions[..., : self._network_action_dim])
        actions = convert_rotations(actions, self.rotations) if self.rotations else actions
        return dataclasses.replace(out, actions=actions)

    def setting(self) -> Setting:
        """What samplers are bound to: the network as it is run now, the chain, and what was learnt beside them."""
        models = self.draft_models.to(self.device)
        return Setting(
            Model(self.engine or self.denoiser, self.device),
            self.chain,
            torch.Size(self.sample_shape),
            self.calibration,
            models.denoiser,
            models.head,
        )

    def bound(self, sampler: str | Sampler) -> BoundSampler:
        """A sampler bound to this policy. It is made once, as long as its engine, device and calibration stay.

        Raises:
            SpecpolicyError: a sampler that the policy's chain cannot be walked with or that lacks a model.
        """
        models = self.draft_models
        now = (self.engine, self.chain, self.calibration, models.denoiser, models.head, self.denoiser)
        for known, device, parts, bound in self._bound:
            if known == sampler and device == self.device and all(map(operator.is_, parts, now)):
                return bound
        made = make_sampler(sampler) if isinstance(sampler, str) else sampler
        if not hasattr(made, "bind"):
            raise SpecpolicyError(f"sampler={made!r}: give a name, or what specpolicy.make_sampler(name, ...) returns")
        bound = BoundSampler(made, self.setting())
        self._bound = [*self._bound[-MOST_BOUND + 1 :], (sampler, self.device, now, bound)]
        return bound

    def __getstate__(self) -> dict[str, Any]:
        """Copies, and those in other processes, bind samplers themselves."""
        return {**super().__getstate__(), "_bound": []}

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
        nothing = {key: torch.zeros(self.frame_shape(key)) for key in self.observation_keys}
        policy = copy.copy(self)
        policy.engine = make_engine(
            name,
            self.denoiser,
            self.sample_shape,
            self.encode(nothing).shape[1:],
            max_rows or len(self.chain),
            precision,
            self.chain.process.steps,
            self.chain.timesteps.dtype,
        )
        return policy


class PolicySampler:
    """One sampler of one policy, bound: from observations to chunks.

    Attributes:
        policy: whose chunks are drawn.
        options: the sampler, as a value.
        name: of the sampler.
        engine: of the network, by its name.
    """

    def __init__(self, policy: DiffusionPolicy, bound: BoundSampler):
        self.policy, self._bound, self.options, self.name = policy, bound, bound.sampler, bound.sampler.name
        self.engine = "eager" if policy.engine is None else policy.engine.name

    def __repr__(self) -> str:
        return f"PolicySampler({self.options}, engine={self.engine})"

    def __call__(self, observation: Observation, generator: Generators = None, return_states: bool = False) -> Sample:
        """See `DiffusionPolicy.predict`."""
        return self.policy.draw(self._bound, observation, generator, return_states)


def _make_networks(config: PolicyConfig) -> tuple[LowDimEncoder, nn.Module]:
    """The encoder and the bare network."""
    shapes, tokens = dict(config.observation), config.told != "global"
    encoder: LowDimEncoder
    if config.vision is not None:
        encoder = ImageEncoder(shapes, config.n_obs_steps, config.vision, tokens)
    else:
        encoder = LowDimEncoder(
            {key: size for key, size in shapes.items() if isinstance(size, int)}, config.n_obs_steps, tokens
        )
    kind, horizon, inpaints = config.network.kind, config.horizon, config.told == "inpainting"
    options = {name: value for name, value in plain(config.network).items() if name != "kind"}
    input_dim = config.action_dim + (encoder.frame_dim if inpaints else 0)
    if kind == "unet":
        options["local_cond_dim"] = encoder.output_dim if config.told == "local" else None
        options["global_cond_dim"] = encoder.output_dim if config.told == "global" else None
    else:
        options |= dict(output_dim=input_dim, horizon=horizon)
    if kind == "transformer":
        options |= dict(n_obs_steps=encoder.n_obs_steps, cond_dim=0 if inpaints else encoder.output_dim)
    network = NETWORKS[kind](input_dim=input_dim, **options)
    network.check_horizon(horizon)
    return encoder, network
