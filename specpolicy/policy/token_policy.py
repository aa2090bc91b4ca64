"""TokenPolicy: chunks of action tokens, decoded by a masked-diffusion transformer."""

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.committed import HELD, PREDICTED, Committed
from specpolicy.engines import AUTO
from specpolicy.engines.base import Denoiser
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import check_made_for
from specpolicy.model import Model
from specpolicy.networks import LowDimEncoder, MaskedTransformer
from specpolicy.parsing import plain
from specpolicy.parsing.tensors import without_memory
from specpolicy.policy.base import Policy
from specpolicy.policy.config import PolicyConfig
from specpolicy.policy.normaliser import Normaliser
from specpolicy.samplers import Sample
from specpolicy.samplers.base import Generators
from specpolicy.tokens import masked_start
from specpolicy.tokens.bound import BoundDecoder, TokenSetting
from specpolicy.tokens.calibration import CANDIDATES, TokenCalibration, read_token_calibration
from specpolicy.tokens.calibration.calibration import FILE
from specpolicy.tokens.samplers import DECODERS, TokenSampler
from specpolicy.tokens.tokeniser import Tokeniser
from specpolicy.tuning import time_calls

ROWS = tuple(1 + drafts for drafts in CANDIDATES)  # a root, and any offered number of drafts


class TokenPolicy(Policy):
    """Normaliser, tokeniser, encoder and masked transformer, combined. Use it like a `DiffusionPolicy`, with the
    decoders as samplers: `confidence`, `cosine`, `threshold`, `random_order`, `raster`."""

    kind = "tokens"
    sampler_kinds = DECODERS
    quick_sampler = "cosine"
    _takes = TokenSampler

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

    @classmethod
    def from_config(cls, config: PolicyConfig | Mapping[str, Any]) -> "TokenPolicy":
        """Build an untrained policy from the contents of config.json (see `PolicyConfig`).

        Raises:
            SpecpolicyError: an invalid configuration, or not one of action tokens.
        """
        config = PolicyConfig.parse(config)
        if config.tokens is None:
            raise SpecpolicyError("a policy of action tokens needs tokens; this is a diffusion policy")
        encoder, network = _make_networks(config, config.tokens.bins)
        tokeniser = Tokeniser.from_config(config.tokens, config.action_dim)
        return cls(network, tokeniser, encoder, Normaliser.from_config(config.normaliser), config).eval()

    @staticmethod
    def expected_weights(config: PolicyConfig) -> dict[str, Tensor]:
        """Return tensors without memory, with the names, shapes and kinds of such a policy's weights."""
        assert config.tokens is not None
        with without_memory():
            return _make_networks(config, config.tokens.bins)[1].state_dict()

    @property
    def ways(self) -> tuple[str, ...]:
        """See `Policy.ways`."""
        return (HELD,) if self.predictor is None else (HELD, PREDICTED)

    @property
    def sample_shape(self) -> tuple[int, int]:
        """(H, D) of a decoder's result for one chunk."""
        return self.horizon, self.action_dim

    @property
    def tokens(self) -> int:
        """See `Policy.tokens`."""
        return self.horizon * self.action_dim

    @property
    def best_sampler(self) -> str:
        """See `Policy.best_sampler`: of the decoders that do equally well in the shipped tasks, the one with the fewest
        calls."""
        return "cosine"

    @property
    def compared(self) -> tuple[str, ...]:
        """See `Policy.compared`."""
        return "confidence", "cosine", "threshold", "random_order"

    @torch.inference_mode()
    def seconds_by_rows(self, cond: Tensor, turns: int = 7) -> dict[int, float]:
        """See `Policy.seconds_by_rows`."""
        network = self.engine or self.denoiser
        calls = {rows: functools.partial(network, *self.example(rows, cond)) for rows in (1, 2, *ROWS)}
        return time_calls(calls, self.device, turns)

    def setting(self) -> TokenSetting:
        """See `Policy.setting`: the network, the tokens, and their calibration."""
        model = Model(self.engine or self.denoiser, self.device, self.denoiser, per_entry=(self.tokeniser.bins,))
        return TokenSetting(model, torch.Size(self.sample_shape), self.tokeniser.bins, self.calibration)

    def read_beside(self, directory: str | Path) -> None:
        """See `Policy.read_beside`."""
        found = read_token_calibration(directory)
        if found is not None:
            remedy = "delete it, and run `specpolicy calibrate` for this policy"
            check_made_for(found.fingerprint, self.fingerprint, f"the calibration {Path(directory) / FILE}", remedy)
        self.calibration = found

    def _bind(self, sampler: TokenSampler) -> BoundDecoder:
        if sampler.calibration is not None and sampler.calibration.fingerprint is not None:
            made_for = sampler.calibration.fingerprint
            check_made_for(made_for, self.fingerprint, "this calibration", "calibrate this policy")
        return BoundDecoder(sampler, self.setting())

    def _bound_to(self) -> tuple[Any, ...]:
        return self.engine, self.calibration, self.denoiser

    def draw_given(
        self,
        bound: BoundDecoder,
        cond: Tensor,
        committed: list[Committed | None],
        generator: Generators,
        return_states: bool,
    ) -> Sample:
        """See `Policy.draw_given`: committed tokens are known from the start, and so are decoded by no step."""
        start = masked_start(len(cond), self.tokens, self.tokeniser.bins, self.device).view(-1, *self.sample_shape)
        for row, one in enumerate(committed):
            if one is not None:
                actions = torch.from_numpy(one.actions[: one.count]).float().to(self.device)
                known = self.normaliser.normalise("action", actions[: self.horizon - self.first_action])
                start[row, self.first_action : self.first_action + len(known)] = self.tokeniser.encode(known).tokens
        return bound(len(cond), cond, generator, return_states, start.flatten(1))

    def actions_of(self, drawn: Tensor) -> Tensor:
        return self.normaliser.unnormalise("action", self.tokeniser.decode(drawn))

    def with_engine(self, name: str, max_rows: int | None = None, precision: str = "float32") -> "TokenPolicy":
        """Return the same policy, weights shared. Tokens have one engine, "eager", which is also "auto", and one
        precision."""
        if name not in ("eager", AUTO):
            raise SpecpolicyError(f"engine '{name}' does not run policies of action tokens: use engine=eager")
        if precision != "float32":
            raise SpecpolicyError(f"policies of action tokens are decoded in float32, not in {precision}")
        return copy.copy(self)

    def example(self, rows: int, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs for timing one call of the network with `rows` rows, all tokens masked. `cond`: (1, To, F)."""
        states = masked_start(rows, self.tokens, self.tokeniser.bins, self.device).view(-1, *self.sample_shape)
        return states, torch.full((rows,), self.tokens, device=self.device), cond.expand(rows, *cond.shape[1:])


def _make_networks(config: PolicyConfig, bins: int) -> tuple[LowDimEncoder, MaskedTransformer]:
    """Return the encoder and the network."""
    sizes = {key: size for key, size in config.observation.items() if isinstance(size, int)}
    encoder = LowDimEncoder(sizes, config.n_obs_steps, tokens=True)
    options = {name: value for name, value in plain(config.network).items() if name != "kind"}
    shape = (bins, config.horizon, config.action_dim, encoder.output_dim, encoder.n_obs_steps)
    return encoder, MaskedTransformer(*shape, **options)
