"""The base class of all policies."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from specpolicy.committed import Committed, require_way
from specpolicy.engines import AUTO
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import policy_fingerprint
from specpolicy.networks import LowDimEncoder
from specpolicy.parsing.tensors import check_finite, check_layout, layout_of, part_of, prefixed
from specpolicy.policy.checkpoints import write_checkpoint
from specpolicy.policy.config import PolicyConfig
from specpolicy.policy.drawing import draw
from specpolicy.policy.encoding import Encoding
from specpolicy.policy.normaliser import Normaliser
from specpolicy.policy.observations import Observation
from specpolicy.policy.prediction import StatePredictor
from specpolicy.policy.runner import Runner
from specpolicy.policy.sampler import Bound, BoundSamplers, PolicySampler
from specpolicy.sampler_names import AnySampler, make_sampler
from specpolicy.samplers import Sample
from specpolicy.samplers.base import Generators

ENCODER = "observation_encoder."  # prefix of an image encoder's weights beside those of the denoiser


class Policy(nn.Module, ABC):
    """Base of all policies: observations in, chunks out, weights and settings on the disk, the executed part of a
    chunk. A policy knows its samplers, and the best of them.

    The action chunk has `horizon` entries. Entry 0 belongs to the oldest of the `n_obs_steps` observation frames. So
    the first action still to be executed is entry `n_obs_steps - 1` (the convention of Diffusion Policy), unless the
    policy's `first_action` says otherwise.

    Attributes:
        kind: "diffusion" or "tokens".
        sampler_kinds: its samplers, by name.
        quick_sampler: a fast sampler for watching episodes, where the distribution does not matter.
        engine: runs the network; None: torch directly.
        calibration: learnt data beside the weights for faster sampling.
        encoding: normaliser and encoder, as the policy uses them.
        predictor: of what will be observed after committed actions, or None.
    """

    kind: ClassVar[str]
    sampler_kinds: ClassVar[Mapping[str, type]]
    quick_sampler: ClassVar[str]
    _takes: ClassVar[type]  # base class of its samplers
    engine: Any
    calibration: Any
    action_dim: int

    def __init__(
        self,
        denoiser: nn.Module,
        encoder: LowDimEncoder,
        normaliser: Normaliser,
        config: PolicyConfig,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.encoder = encoder
        self.normaliser = normaliser
        self.config = config
        self.horizon = config.horizon
        self.n_obs_steps = config.n_obs_steps
        self.n_action_steps = config.n_action_steps
        self.first_action = config.first
        self.encoding = Encoding(encoder, normaliser)
        self.predictor: StatePredictor | None = None
        self._samplers = BoundSamplers()

    def predict(
        self,
        observation: Observation,
        sampler: str | AnySampler | None = None,
        generator: Generators = None,
        return_states: bool = False,
        committed: Committed | Sequence[Committed | None] | None = None,
    ) -> Sample:
        """Draw one action chunk per observation: `actions` (B, H, D) in the environment's units.

        Args:
            observation: {key: (B, To, D_key)}, or (To, D_key) for a batch of one: arrays or tensors, To = `n_obs_steps`
                frames, the newest last, in the environment's units.
            sampler: a name such as "recycled", or a result of `specpolicy.make_sampler`; None: `best_sampler`.
            generator: one, or one per row.
            return_states: also `states` (K+1, B, *sample_shape), in the policy's terms: normalised units, or tokens.
            committed: actions that are executed before the chunk can be used: the chunk is drawn given them, and they
                stand in it as they are. One value for all observations, or one per observation, some of which may be
                None.

        Raises:
            SpecpolicyError: an observation that does not fit, a sampler of another kind of policy, or one that does not
                fit this policy's chain or lacks a model; a network that returns NaN or infinity; states of a chunk that
                is planned ahead (`predicted`).
        """
        return draw(self, self.bound(sampler), observation, generator, return_states, committed)

    def sampler(
        self, sampler: str | AnySampler | None = None, *, engine: str | None = None, **options: Any
    ) -> PolicySampler:
        """Return a sampler bound to this policy: `sampler(observation, generator=g)` draws without look-ups.

        Args:
            sampler: a name, such as "recycled", with its `options`, or a result of `specpolicy.make_sampler`; None:
                `best_sampler`.
            engine: runs the network, see `with_engine`; None: as the policy does.
            **options: of the sampler.

        Raises:
            SpecpolicyError: no such sampler, option or engine; a sampler that does not fit this policy.
        """
        policy = self if engine is None else self.with_engine(engine)
        if not isinstance(sampler, str | None):
            if options:
                raise SpecpolicyError(f"sampler={sampler}: options are given with a name, this one has its own")
            return PolicySampler(policy, policy.bound(sampler))
        return PolicySampler(policy, policy.bound(make_sampler(sampler or self.best_sampler, **options)))

    def runner(
        self,
        sampler: str | AnySampler | None = None,
        *,
        engine: str | None = None,
        seed: int = 0,
        execute_steps: int | None = None,
        **options: Any,
    ) -> Runner:
        """Return a runner that acts step by step: `action = runner(observation)` at every control step,
        `runner.reset()` between episodes.

        Args:
            sampler, **options: see `sampler`.
            engine: runs the network, see `with_engine`; None: as the policy does, and if it has no engine, the fastest
                here ("auto").
            seed, execute_steps: see `Runner`.

        Raises:
            SpecpolicyError: see `sampler` and `Runner`.
        """
        if engine is None and self.engine is None:
            engine = AUTO
        return Runner(self.sampler(sampler, engine=engine, **options), seed, execute_steps)

    @property
    @abstractmethod
    def best_sampler(self) -> str:
        """Name of the fastest exact sampler for this policy."""

    def bound(self, sampler: str | AnySampler | None = None) -> Any:
        """Return a sampler bound to this policy, see `Bound`. It is made once for each setting.

        Raises:
            SpecpolicyError: a sampler of another kind of policy, or one that does not fit this one.
        """
        return self._samplers.get(
            (sampler, self.device), self._bound_to(), lambda: self._bind(self.as_sampler(sampler))
        )

    def as_sampler(self, sampler: str | AnySampler | None = None) -> Any:
        """Return a sampler as a value: by its name, or the given one; None: `best_sampler`.

        Raises:
            SpecpolicyError: no such sampler, or one of another kind of policy.
        """
        sampler = self.best_sampler if sampler is None else sampler
        made = make_sampler(sampler) if isinstance(sampler, str) else sampler
        if not isinstance(made, AnySampler):
            raise SpecpolicyError(f"sampler={made!r}: give a name, or what specpolicy.make_sampler(name, ...) returns")
        if not isinstance(made, self._takes):
            does, are = (
                ("decodes action tokens", "are denoised") if self.kind == "diffusion" else ("denoises", "are tokens")
            )
            raise SpecpolicyError(
                f"sampler '{made.name}' {does}, and this policy's actions {are}: use {', '.join(self.sampler_kinds)}"
            )
        return made

    @property
    @abstractmethod
    def compared(self) -> tuple[str, ...]:
        """Names of the samplers to compare by default for this policy; the first is the reference."""

    @property
    def steps(self) -> int | None:
        """Steps of the chain; None without a chain."""
        return None

    @property
    def tokens(self) -> int | None:
        """Tokens of a chunk; None without tokens."""
        return None

    @abstractmethod
    def seconds_by_rows(self, cond: Tensor, turns: int = 7) -> dict[int, float]:
        """Return the seconds of one call of the network on its engine, by number of rows. `cond`: (1, ...) one encoded
        observation. `turns`: see `time_calls`."""

    @abstractmethod
    def setting(self) -> Any:
        """Return the setting that samplers are bound to: the network as it runs now, and everything else that stays the
        same from chunk to chunk."""

    @abstractmethod
    def with_engine(self, name: str, max_rows: int | None = None, precision: str = "float32") -> Self:
        """Return the same policy, weights shared, whose network runs on an engine."""

    @abstractmethod
    def read_beside(self, directory: str | Path) -> None:
        """Read the learnt data beside the weights of its checkpoint: a calibration, draft models.

        Raises:
            SpecpolicyError: a damaged file, or one made for another policy, or for this one before its weights were
                changed.
        """

    @abstractmethod
    def _bind(self, sampler: Any) -> Bound:
        """Return the sampler, bound to `setting`."""

    @abstractmethod
    def draw_given(
        self, bound: Any, cond: Tensor, committed: list[Committed | None], generator: Generators, return_states: bool
    ) -> Sample:
        """Return the result of a sampler, each row given what is committed for it, in a way that `check_way` takes."""

    @abstractmethod
    def _bound_to(self) -> tuple[Any, ...]:
        """Return everything that `_bind` takes from the policy; if any of it is another object, the sampler is bound
        again."""

    @abstractmethod
    def actions_of(self, drawn: Tensor) -> Tensor:
        """Return actions in the environment's units for the result of a sampler."""

    def __getstate__(self) -> dict[str, Any]:
        """Drop bound samplers: a copy, also in another process, binds its own."""
        return {**super().__getstate__(), "_samplers": BoundSamplers()}

    @property
    @abstractmethod
    def ways(self) -> tuple[str, ...]:
        """How its chunks can continue committed actions, see `specpolicy.Committed`."""

    @property
    def remedies(self) -> Mapping[str, str]:
        """What to do for ways that it could have, by name."""
        return {}

    def check_way(self, way: str) -> None:
        """Raise a clear error if its chunks cannot continue committed actions in a way, such as "linear-0.3"."""
        require_way(way, self.ways, self.remedies)

    @property
    def control_hz(self) -> float | None:
        """Control steps per second that the actions are made for; None if unknown."""
        return self.config.control_hz

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """Keys of the observation, in the order of the condition vector."""
        return self.encoder.keys

    @property
    def engine_name(self) -> str:
        """Name of the network's engine: "eager" for torch directly."""
        return getattr(self.engine, "name", "eager")

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.denoiser.parameters()).device

    def encode(self, observation: Observation) -> Tensor:
        """Return the condition of the denoiser for `observation`: {key: (B, To, ...) or (To, ...)}, arrays or tensors.

        Images are bytes, or floats in [0, 1]; their channels come first or last (see `unit_images`). Frames that were
        encoded lately are not encoded again (see `Encoding`).

        Raises:
            SpecpolicyError: an observation that does not fit.
        """
        return self.encoding(observation, self.device)

    def train(self, mode: bool = True) -> Self:
        """See `nn.Module.train`. Frames are encoded anew, as some optimizers change weights without a trace."""
        self.encoding.cache.clear()
        return super().train(mode)

    def forget_frames(self) -> None:
        """Encode anew even the frames that were encoded lately; for measurements."""
        self.encoding.cache.clear()

    def frame_shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of one observation's frames of a key, the number of frames first."""
        return self.encoding.frame_shape(key)

    def executable(self, actions: Tensor) -> Tensor:
        """Return the executed part of chunks (..., H, D): (..., n_action_steps, D) from the newest observation on."""
        if actions.dim() < 2 or actions.shape[-2] != self.horizon:
            raise SpecpolicyError(
                f"actions of shape {tuple(actions.shape)} are no chunks of {self.horizon} actions: give the `actions` "
                "that `predict` returns"
            )
        return actions[..., self.first_action : self.first_action + self.n_action_steps, :]

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the weights, by which calibrations and draft models name their policy."""
        return policy_fingerprint(self.denoiser, self.encoder)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights that `save` writes: the denoiser's, and those of an image encoder with a prefix.

        Raises:
            SpecpolicyError: weights that do not fit, or that are not finite.
        """
        own = self._weights()
        check_layout(layout_of(weights), own)
        check_finite(weights, own)
        encoder = part_of(weights, ENCODER)
        self.denoiser.load_state_dict({name: value for name, value in weights.items() if not name.startswith(ENCODER)})
        self.encoder.load_state_dict(encoder)

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write `model.safetensors` and `config.json`; weights are stored as `dtype`."""
        config = dataclasses.replace(self.config, normaliser=self.normaliser.to_config())
        return write_checkpoint(directory, self._weights(), config, dtype)

    def _weights(self) -> dict[str, Tensor]:
        return self.denoiser.state_dict() | prefixed(self.encoder.state_dict(), ENCODER)
