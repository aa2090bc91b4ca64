"""DiffusionPolicy: from an observation history to a chunk of actions."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.committed import DIFFERENTIATES, GRADIENT, HELD, LINEAR, PREDICTED, REMEDIES, TRAINED, WAYS, Committed
from specpolicy.conditioning import Inpainting
from specpolicy.denoisers.prefix import Prefix, Prefixed
from specpolicy.diffusion import GaussianChain
from specpolicy.engines import AUTO, Engine, make_engine
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import check_made_for
from specpolicy.model import Model
from specpolicy.networks import LowDimEncoder
from specpolicy.parsing.tensors import prefixed, without_memory
from specpolicy.policy.base import ENCODER, Policy
from specpolicy.policy.config import PolicyConfig
from specpolicy.policy.continuing import Continuing
from specpolicy.policy.draft_models import DraftModels, read_draft_models
from specpolicy.policy.networks import is_wrapped, make_networks, wrapped
from specpolicy.policy.normaliser import Normaliser
from specpolicy.policy.observations import Observation
from specpolicy.policy.rotations import convert_rotations, restore_rotations
from specpolicy.samplers import BoundSampler, Calibration, Sample, Sampler, Setting
from specpolicy.samplers.base import Generators
from specpolicy.samplers.recycled.calibration import read_calibration
from specpolicy.samplers.registry import SAMPLERS
from specpolicy.tuning import measure_cost


class DiffusionPolicy(Policy):
    """Normaliser, encoder, denoiser and chain, combined; also of flow policies, whose denoiser predicts a velocity."""

    kind = "diffusion"
    sampler_kinds = SAMPLERS
    _takes = Sampler

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
        self._continuing = Continuing(self.sample_shape, self.first_action, config.action_dim)

    @classmethod
    def from_config(cls, config: PolicyConfig | Mapping[str, Any]) -> "DiffusionPolicy":
        """Build an untrained policy from the contents of config.json (see `PolicyConfig`).

        Raises:
            SpecpolicyError: an invalid configuration, or not one of a diffusion policy.
        """
        config = PolicyConfig.parse(config)
        options = config.chain or config.flow or config.mip
        if options is None:
            raise SpecpolicyError("a diffusion policy needs a chain; this is a policy of action tokens")
        encoder, network = make_networks(config)
        chain = options.make()
        denoiser = wrapped(network, config, chain, encoder)
        return cls(denoiser, chain, encoder, Normaliser.from_config(config.normaliser), config).eval()

    @staticmethod
    def expected_weights(config: PolicyConfig) -> dict[str, Tensor]:
        """Return tensors without memory, with the names, shapes and kinds of such a policy's weights."""
        with without_memory():
            encoder, network = make_networks(config)
        inside = "network." if is_wrapped(config) else ""
        return prefixed(network.state_dict(), inside) | prefixed(encoder.state_dict(), ENCODER)

    @property
    def action_dim(self) -> int:  # type: ignore[override]
        """Dimension of an action in the environment's units."""
        return self._network_action_dim - 3 * len(self.rotations)

    @property
    def sample_shape(self) -> tuple[int, int]:
        """(H, D) of a sampler's draw for one chunk; a policy that inpaints also draws observations."""
        inpaints = isinstance(self.denoiser, Inpainting)
        return self.horizon, self._network_action_dim + (self.encoder.frame_dim if inpaints else 0)

    @property
    def prefix(self) -> Prefix | None:
        """How its condition tells the network of committed actions; None: it has learnt to continue none."""
        return self.denoiser.prefix if isinstance(self.denoiser, Prefixed) else None

    @property
    def ways(self) -> tuple[str, ...]:
        """See `Policy`."""
        # With a prefix it is calibrated on chunks that continue actions: their covariance is not that of free ones.
        linear = self.calibration if self.prefix is None else None
        gradients = True if self.engine_name == DIFFERENTIATES else None
        needed = {GRADIENT: gradients, LINEAR: linear, TRAINED: self.prefix, PREDICTED: self.predictor}
        return tuple(way for way in WAYS if way not in needed or needed[way] is not None)

    @property
    def remedies(self) -> Mapping[str, str]:
        """See `Policy.remedies`."""
        return REMEDIES if self.prefix is None else {**REMEDIES, LINEAR: f"stitching={TRAINED}, which it has learnt"}

    def encode(self, observation: Observation) -> Tensor:
        """See `Policy.encode`; nothing is committed."""
        cond = super().encode(observation)
        return cond if self.prefix is None else self.prefix.pack(cond)

    @property
    def best_sampler(self) -> str:
        """See `Policy.best_sampler`: "recycled" where it is calibrated, else "block". Where the chain adds no noise:
        "ddpm", which walks the policy's own chain."""
        if not self._has_noise:
            return "ddpm"
        return "block" if self.calibration is None else "recycled"

    @property
    def compared(self) -> tuple[str, ...]:
        """See `Policy.compared`."""
        if self.config.mip is not None:
            return ("ddpm",)
        if not self._has_noise:
            return "ddpm", self._quick_ddim, "dpm_solver"
        return "ddpm", self.quick_sampler, "asd", "block", "recycled"

    @property
    def quick_sampler(self) -> str:  # type: ignore[override]
        """See `Policy`: ten steps without noise, or as many as it was trained on; of a flow policy those of its ODE;
        the two of a minimal iterative policy."""
        if self.config.mip is not None:
            return "ddpm"
        return self._quick_ddim if self.config.flow is None else "euler-10"

    @property
    def _quick_ddim(self) -> str:
        return f"ddim-{min(10, self.chain.process.steps)}"

    @property
    def _has_noise(self) -> bool:
        """Whether the chain adds noise at every step but the last, which speculation needs."""
        return bool((self.chain.sigma[:-1] > 0).all())

    @property
    def steps(self) -> int:
        """See `Policy.steps`."""
        return len(self.chain)

    @torch.inference_mode()
    def seconds_by_rows(self, cond: Tensor, turns: int = 7) -> dict[int, float]:
        """See `Policy.seconds_by_rows`."""
        timesteps = self.chain.timesteps_on(self.device)
        return measure_cost(Model(self.engine or self.denoiser, self.device), timesteps, self.sample_shape, cond, turns)

    def setting(self) -> Setting:
        """See `Policy.setting`: the network, the chain, and the learnt data beside them."""
        models = self.draft_models.to(self.device)
        return Setting(
            Model(self.engine or self.denoiser, self.device),
            self.chain,
            torch.Size(self.sample_shape),
            self.calibration,
            models.denoiser,
            models.head,
        )

    def read_beside(self, directory: str | Path) -> None:
        """See `Policy.read_beside`."""
        calibration, models = read_calibration(directory), read_draft_models(directory)
        if calibration is not None:
            remedy = (
                "run `specpolicy calibrate` for this policy, or delete speculation.json and speculation.safetensors"
            )
            check_made_for(calibration.fingerprint, self.fingerprint, f"the calibration in {directory}", remedy)
        if models.models():
            remedy = "run `specpolicy train_drafter` for this policy, or delete drafters.json and drafters.safetensors"
            check_made_for(models.fingerprint, self.fingerprint, f"the draft models in {directory}", remedy)
        self.calibration, self.draft_models = calibration, models

    def _bind(self, sampler: Sampler) -> BoundSampler:
        return BoundSampler(sampler, self.setting())

    def _bound_to(self) -> tuple[Any, ...]:
        models = self.draft_models
        return self.engine, self.chain, self.calibration, models.denoiser, models.head, self.denoiser

    def draw_given(
        self,
        bound: BoundSampler,
        cond: Tensor,
        committed: list[Committed | None],
        generator: Generators,
        return_states: bool,
    ) -> Sample:
        """See `Policy.draw_given`."""
        way = next(one.way for one in committed if one is not None)
        if way != TRAINED:
            return self._continuing.draw(bound, cond, committed, self._normalised, generator, return_states)
        assert self.prefix is not None
        given = self.prefix.tell(cond, committed, self._normalised)
        # The network predicts the committed actions itself. Held, they are known to its drafters as well.
        most = self.prefix.length
        held = [one and Committed(one.actions[:most], min(one.count, most), HELD) for one in committed]
        out = self._continuing.draw(bound, given, held, self._normalised, generator, return_states)
        # The chain clips what it draws; what is executed stands in the chunk as it is.
        _, values, known = self.prefix.unpack(given, self.horizon)
        return replace(out, actions=torch.where(known, values, out.actions))

    def _normalised(self, actions: Tensor) -> Tensor:
        """Return actions (n, D) in the environment's units as the network sees them."""
        six = restore_rotations(actions, self.rotations) if self.rotations else actions
        return self.normaliser.normalise("action", six)

    def actions_of(self, drawn: Tensor) -> Tensor:
        actions = self.normaliser.unnormalise("action", drawn[..., : self._network_action_dim])
        return convert_rotations(actions, self.rotations) if self.rotations else actions

    def with_engine(self, name: str, max_rows: int | None = None, precision: str = "float32") -> "DiffusionPolicy":
        """Return the same policy, weights shared, whose `predict` runs the network on an engine (see `make_engine`).

        An encoder of images runs on the same engine, in float32. "auto" counts its time with that of the network; it
        stays as it is where the engine cannot express it. The policy stays on its device.

        Args:
            name: of the engine.
            max_rows: most rows of one call of the network; by default the steps of the chain, the most that one chunk
                needs.
            precision: "float32", or "bfloat16" inside the network, which changes the distribution.
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
            # Solvers of a flow also ask for times between those of its grid.
            torch.int64 if self.config.flow is None else torch.float32,
            self.encoding.beside(self.device),
        )
        on_engine = self.encoding.where_possible if name == AUTO else self.encoding.on_engine
        policy.encoding = on_engine(policy.engine.name)
        return policy
