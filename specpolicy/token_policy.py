"""TokenPolicy: chunks of action tokens, decoded by a masked-diffusion transformer."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specpolicy.engines import AUTO
from specpolicy.engines.base import allows_tf32
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import check_made_for
from specpolicy.model import Model
from specpolicy.networks import LowDimEncoder, MaskedTransformer
from specpolicy.normaliser import Normaliser
from specpolicy.parsing import plain
from specpolicy.parsing.tensors import without_memory
from specpolicy.policy_base import Observation, Policy
from specpolicy.policy_config import PolicyConfig
from specpolicy.samplers import Sample, Sampler, SampleStatistics, make_sampler
from specpolicy.samplers.base import Denoiser, Generators, NoiseSource
from specpolicy.tokens import Decoded, DecodingNoise, Drafter, Rule, decode, masked_start, speculate
from specpolicy.tokens.calibration import TokenCalibration, Trace, record_traces
from specpolicy.tokens.ordinary import Network
from specpolicy.tokens.samplers import TOKEN_SAMPLERS, TokenSampler
from specpolicy.tokens.tokeniser import Tokeniser
from specpolicy.tuning import now


class TokenPolicy(Policy):
    """Normaliser, tokeniser, encoder and masked transformer, put together. It is used as a `DiffusionPolicy` is, with
    the decoders as samplers: `confidence`, `cosine`, `threshold`, `random_order`, `raster`."""

    quick_sampler = "cosine"

    def __init__(
        self,
        denoiser: MaskedTransformer,
        tokeniser: Tokeniser,
        encoder: LowDimEncoder,
        normaliser: Normaliser,
        config: PolicyConfig,
    ):
        super().__init__(denoiser, encoder, normaliser, config)
        self.tokeniser = tokeniser
        self.engine: Denoiser | None = None
        self.calibration: TokenCalibration | None = None
        self.action_dim = denoiser.action_dim
        self._drafters: dict[tuple[TokenSampler, str, int], Drafter | None] = {}

    @classmethod
    def from_config(cls, config: PolicyConfig | Mapping[str, Any]) -> "TokenPolicy":
        """Build an untrained policy from what config.json says (see `PolicyConfig`).

        Raises:
            SpecpolicyError: a configuration that is none, or not one of action tokens.
        """
        config = PolicyConfig.parse(config)
        if config.tokens is None:
            raise SpecpolicyError("a policy of action tokens needs tokens; this is a diffusion policy")
        encoder, network = _make_networks(config, config.tokens.bins)
        tokeniser = Tokeniser.from_config(config.tokens, config.action_dim)
        return cls(network, tokeniser, encoder, Normaliser.from_config(config.normaliser), config).eval()

    @staticmethod
    def expected_weights(config: PolicyConfig) -> dict[str, Tensor]:
        """Tensors without memory, of the names, shapes and kinds that the weights of such a policy have."""
        assert config.tokens is not None
        with without_memory():
            return _make_networks(config, config.tokens.bins)[1].state_dict()

    @property
    def sample_shape(self) -> tuple[int, int]:
        """(H, D) of what a decoder fills for one chunk."""
        return self.horizon, self.action_dim

    @property
    def length(self) -> int:
        """Tokens of a chunk."""
        return self.horizon * self.action_dim

    @torch.inference_mode()
    def predict(
        self,
        observation: Observation,
        sampler: str | Sampler | TokenSampler = "confidence",
        generator: Generators = None,
        return_states: bool = False,
    ) -> Sample:
        """Decode one action chunk per observation: `actions` (B, H, D) in the environment's units.

        observation: {key: (B, To, D_key)}, or (To, D_key) for a batch of one. generator: one, or one per row.
        The same generator gives the same noise, and with it the same tokens, whatever is drafted. `states`, if asked
        for: (K+1, B, H, D) tokens, masked ones as the number of bins, the last one repeated for chunks of fewer steps.

        Raises:
            SpecpolicyError: a sampler of diffusion policies; drafts in less than float32 (see `decode`).
        """
        made, cond = self.equip(sampler), self.encode(observation)
        begin = now(self.device)
        model = Model(self.engine or self.denoiser, self.device, per_entry=(self.tokeniser.bins,))
        out = self.decode(cond, made, generator, model, return_states)
        actions = self.tokeniser.decode(out.tokens.view(-1, *self.sample_shape))
        stats = SampleStatistics(
            out.calls,
            out.rows,
            out.accepted,
            rows_by_call=tuple(model.rows_by_call),
            seconds=now(self.device) - begin,
            network_seconds=model.seconds,
        )
        states = self._states(out) if return_states else None
        return Sample(self.normaliser.unnormalise("action", actions), stats, states)

    @torch.inference_mode()
    def decode(
        self,
        cond: Tensor,
        sampler: TokenSampler,
        generator: Generators = None,
        denoiser: Denoiser | None = None,
        keep_paths: bool = False,
    ) -> Decoded:
        """Decode a chunk for each of the encoded observations `cond` (B, To, F), with the sampler as it is.

        denoiser: what evaluates states in the network's place.

        Raises:
            SpecpolicyError: drafts in less than float32, where a row's logits depend on how many are evaluated beside
                it.
        """
        rule, drafter = sampler.rule(self.length), self._drafter(sampler)
        if drafter is not None and (why := _inexact(next(self.denoiser.parameters()).dtype, self.device)):
            raise SpecpolicyError(f"drafts change nothing in float32 only, and {why}: use drafts=0")
        noise, start = self._begin(len(cond), rule, generator)
        network, vocabulary = self.network(cond, denoiser), self.tokeniser.bins
        if drafter is None:
            return decode(network, rule, noise, start, vocabulary, keep_paths=keep_paths)
        return speculate(network, rule, drafter, noise, start, vocabulary, keep_paths=keep_paths)

    def network(self, cond: Tensor, denoiser: Denoiser | None = None) -> Network:
        """The network as decoders see it, for encoded observations `cond` (B, To, F)."""
        vocabulary, evaluate = self.tokeniser.bins, denoiser or self.engine or self.denoiser

        def logits(states: Tensor, owner: Tensor) -> Tensor:
            remaining = (states == vocabulary).sum(dim=1)
            return evaluate(states.view(-1, *self.sample_shape), remaining, cond[owner]).flatten(1, 2)

        return logits

    @torch.inference_mode()
    def record(
        self, cond: Tensor, sampler: TokenSampler, generator: Generators, blind: bool = False
    ) -> tuple[list[Trace], Tensor]:
        """Traces of the ordinary decoder and its tokens (B, L), for encoded observations `cond` (B, To, F).

        `blind`: see `record_traces`.
        """
        rule = sampler.rule(self.length)
        noise, start = self._begin(len(cond), rule, generator)
        return record_traces(self.network(cond), rule, noise, start, self.tokeniser.bins, blind)

    def equip(self, sampler: str | Sampler | TokenSampler) -> TokenSampler:
        """The decoder, by name or made, with the policy's calibration, and with the machine whose choice holds here."""
        made = make_sampler(sampler) if isinstance(sampler, str) else sampler
        if not isinstance(made, TokenSampler):
            raise SpecpolicyError(
                f"sampler '{made.name}' denoises; this policy's actions are tokens: use {', '.join(TOKEN_SAMPLERS)}"
            )
        calibration = self.calibration if made.calibration is None else made.calibration
        if calibration is not None:
            calibration.check(self.length, self.tokeniser.bins)
            if made.calibration is not None and calibration.fingerprint is not None:
                check_made_for(calibration.fingerprint, self.fingerprint, "this calibration", "calibrate this policy")
        return dataclasses.replace(made, calibration=calibration, machine=self.machine)

    @property
    def machine(self) -> str:
        """What the number of drafts is chosen for, as in "cpu" or "cuda"."""
        return Model(self.engine or self.denoiser, self.device).backend

    def with_engine(self, name: str, max_rows: int | None = None, precision: str = "float32") -> "TokenPolicy":
        """The same policy, weights shared. There is one engine for tokens, "eager", which is also what "auto" is, and
        one precision."""
        if name not in ("eager", AUTO):
            raise SpecpolicyError(f"engine '{name}' does not run policies of action tokens: use engine=eager")
        if precision != "float32":
            raise SpecpolicyError(f"policies of action tokens are decoded in float32, not in {precision}")
        return copy.copy(self)

    def example(self, rows: int, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of one call of the network with `rows` rows, to time it: nothing is known. cond: (1, To, F)."""
        states = masked_start(rows, self.length, self.tokeniser.bins, self.device).view(-1, *self.sample_shape)
        return states, torch.full((rows,), self.length, device=self.device), cond.expand(rows, *cond.shape[1:])

    def _drafter(self, sampler: TokenSampler) -> Drafter | None:
        """The sampler's drafter; graphs are laid out once."""
        key = (sampler, sampler.machine, id(sampler.calibration))
        if key not in self._drafters:
            self._drafters[key] = sampler.make_drafter(self.length)
        return self._drafters[key]

    def _begin(self, batch: int, rule: Rule, generator: Generators) -> tuple[DecodingNoise, Tensor]:
        """The noise and the masked states of new chunks."""
        source = NoiseSource(generator, batch, self.device, torch.float32)
        noise = rule.draw_noise(self.tokeniser.bins, source.uniform)
        return noise, masked_start(batch, self.length, self.tokeniser.bins, self.device)

    def _states(self, out: Decoded) -> Tensor:
        assert out.paths is not None
        steps = max(map(len, out.paths))
        paths = [torch.stack([*path, *[path[-1]] * (steps - len(path))]) for path in out.paths]
        return torch.stack(paths, dim=1).view(steps, -1, *self.sample_shape)


def _make_networks(config: PolicyConfig, bins: int) -> tuple[LowDimEncoder, MaskedTransformer]:
    """The encoder and the network."""
    sizes = {key: size for key, size in config.observation.items() if isinstance(size, int)}
    encoder = LowDimEncoder(sizes, config.n_obs_steps, tokens=True)
    options = {name: value for name, value in plain(config.network).items() if name != "kind"}
    shape = (bins, config.horizon, config.action_dim, encoder.output_dim, encoder.n_obs_steps)
    return encoder, MaskedTransformer(*shape, **options)


def _inexact(precision: torch.dtype, device: torch.device) -> str | None:
    """Why matrix products would be less than float32, in words; None: they are not."""
    if precision != torch.float32:
        return f"the network has {precision}"
    if torch.is_autocast_enabled(device.type):
        return "torch.autocast is active"
    if device.type == "cuda" and allows_tf32("products"):
        return "torch.backends.cuda.matmul allows TF32"
    return None
