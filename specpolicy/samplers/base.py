"""Base classes of samplers: options are bound to a setting, then draw chunks and report their cost."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from specpolicy.conditioning import Continuation, check_whole
from specpolicy.diffusion import GaussianChain
from specpolicy.engines import Engine
from specpolicy.engines.base import Denoiser as Denoiser  # re-exported for users of samplers
from specpolicy.engines.wrapped import WrappedEngine
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model

if TYPE_CHECKING:
    from specpolicy.samplers.recycled.calibration import Calibration

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class SampleStatistics:
    """Cost of a sample.

    Attributes:
        calls: (B,) sequential network calls of each chunk.
        rows: (B,) states evaluated for each chunk.
        accepted: accepted drafts, one (B,) tensor for each speculative round, -1 for rows already finished.
        evaluated: evaluated states, in the same form.
        rejections: (K,) by step, noisiest first; None for samplers that reject nothing.
        rows_by_call: states of each call, for all chunks together.
        seconds: wall time of the whole sample; for a policy's observation with its encoding.
        encode_seconds: the part of it spent in encoding the observation.
        network_seconds: the part of it spent in the denoiser, or in everything that the engine captured, such as whole
            rounds on a GPU.
    """

    calls: Tensor
    rows: Tensor
    accepted: list[Tensor] = field(default_factory=list)
    evaluated: list[Tensor] = field(default_factory=list)
    rejections: Tensor | None = None
    rows_by_call: tuple[int, ...] = ()
    seconds: float = 0.0
    network_seconds: float = 0.0
    encode_seconds: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Sampled action chunks: `actions` (B, H, D). If asked for: `states` (K+1, B, H, D), noisiest first, and
    `log_probs` (K, B), the log density of every step (see `specpolicy.log_probs`)."""

    actions: Tensor
    stats: SampleStatistics
    states: Tensor | None = None
    log_probs: Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """Everything a sampler is bound to, which stays the same from chunk to chunk.

    Attributes:
        model: the network; each draw calls a `fresh` one.
        chain: the policy's chain; a sampler may walk another one of the same training process.
        shape: (H, D) of a chunk.
        calibration: the policy's calibration, for samplers that use one.
        draft_denoiser: a smaller denoiser, for independent drafts.
        draft_head: a correction head, for corrected drafts.
        dtype: dtype of the states.
        continuation: wraps everything that predicts x0, where chunks continue committed actions; `model` is wrapped
            already, and conditions are packed with them.
    """

    model: Model
    chain: GaussianChain
    shape: torch.Size
    calibration: "Calibration | None" = None
    draft_denoiser: Denoiser | None = None
    draft_head: Any = None
    dtype: torch.dtype = torch.float32
    continuation: Continuation | None = None

    @property
    def device(self) -> torch.device:
        """Device of the network and of the states."""
        return self.model.device

    @property
    def backend(self) -> str:
        """Name under which a calibration keeps its plans for this engine and device; see `backend_name`."""
        return self.model.backend

    def continuing(self, continuation: Continuation) -> "Setting":
        """Return the setting of the conditioned chain.

        Raises:
            SpecpolicyError: a chain whose levels have no whole numbers.
        """
        check_whole(self.chain.timesteps)
        model, way = self.model, continuation.way
        wrapped: Denoiser = (
            WrappedEngine(model.denoiser, continuation.denoiser, way.fixed_shapes)
            if isinstance(model.denoiser, Engine)
            else continuation.denoiser(model.denoiser)
        )
        told = Model(wrapped, model.device, model.network, model.per_entry, way.evaluations)
        return replace(self, model=told, continuation=continuation)


class NoiseSource:
    """Source of all randomness of a sampler: one generator for the batch, or one per row.

    With one generator per row, a row's noises do not depend on the other rows of the batch.
    """

    def __init__(self, generator: Generators, batch: int, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype, self.batch = device, dtype, batch
        if generator is not None and not isinstance(generator, torch.Generator):
            if not isinstance(generator, Sequence) or not all(isinstance(one, torch.Generator) for one in generator):
                raise SpecpolicyError(
                    f"generator={generator!r}: give a torch.Generator, such as torch.Generator().manual_seed(0), or a "
                    "sequence of them, one per row"
                )
            generator = list(generator)
            if len(generator) != batch:
                raise SpecpolicyError(
                    f"got {len(generator)} generators for a batch of {batch}: give one, or one per row"
                )
            if batch == 1:
                generator = generator[0]
        self._generator = generator

    def normal(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Standard normal noise (B, *shape), or (len(rows), *shape) for some rows of the batch."""
        return upload(self._draw(torch.randn, shape, rows, self.dtype), self.device)

    def normals(self, count: int, *shape: int) -> Tensor:
        """(count, B, *shape): the results of `count` calls of `normal`."""
        drawn = [self._draw(torch.randn, shape, None, self.dtype) for _ in range(count)]
        return upload(torch.stack(drawn), self.device)

    def uniform(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Uniform numbers in [0, 1), float64: the decisions of a verifier compare small probabilities."""
        return upload(self._draw(torch.rand, shape, rows, torch.float64), self.device)

    def _draw(self, draw, shape: tuple[int, ...], rows: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Draw on the generator's device. A CPU generator also serves a GPU sampler, so the same seed gives the same
        noises on both."""
        generator = self._generator
        if isinstance(generator, list):
            chosen = range(self.batch) if rows is None else rows.tolist()
            drawn = [self._on(generator[row].device, generator[row], draw, shape, dtype) for row in chosen]
            return torch.stack(drawn) if drawn else torch.empty((0, *shape), dtype=dtype)
        source = self.device if generator is None else generator.device
        number = self.batch if rows is None else len(rows)
        return self._on(source, generator, draw, (number, *shape), dtype)

    @staticmethod
    def _on(
        source: torch.device, generator: torch.Generator | None, draw, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        return draw(shape, generator=generator, device=source, dtype=dtype)


@dataclass(frozen=True)
class Chunks:
    """One request for chunks.

    Attributes:
        state: (B, H, D) the initial noise.
        cond: conditions of B rows, or None.
        noise: source of all other random numbers.
        return_states: whether to return the states on the way.
    """

    state: Tensor
    cond: Tensor | None
    noise: NoiseSource
    return_states: bool = False


Draw = Callable[[Model, Chunks], Sample]  # the model counts the calls of this draw


class Sampler(ABC):
    """Draws action chunks. A frozen dataclass of options, checked on creation, so it can be reused freely."""

    name: ClassVar[str]

    @abstractmethod
    def bind(self, setting: Setting) -> Draw:
        """Return a function that draws chunks in a setting. It settles all that depends on options, chain, engine and
        calibration.

        Several threads may draw with it at once.

        Raises:
            SpecpolicyError: options, chain and calibration that do not fit together.
        """

    def target(self, chain: GaussianChain) -> GaussianChain | None:
        """Return the chain whose steps are sampled; None for solvers of an equation, which samples no steps."""
        return None

    def learnt(self, setting: Setting, backend: str) -> Iterator[Any]:
        """Yield the learnt parts of a setting that this sampler uses: modules, and settings as plain values.

        Args:
            setting: the setting to bind to.
            backend: what will run the network, see `backend_name`.
        """
        return iter(())


def upload(value: Tensor, device: torch.device) -> Tensor:
    """Return `value` on `device`, without waiting for pending work of a GPU."""
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def repeat_statistics(batch: int, calls: int) -> SampleStatistics:
    """Statistics of a sampler that evaluates each chunk once per call."""
    count = torch.full((batch,), calls, dtype=torch.int64)
    return SampleStatistics(calls=count, rows=count.clone())


def check_finite(checksums: Tensor, timesteps: Tensor) -> None:
    """Raise a clear error if a step produced NaN or infinity; `checksums` (K,) by step, one synchronisation."""
    bad = (~torch.isfinite(checksums)).nonzero().flatten()
    if len(bad):
        raise SpecpolicyError(
            f"the denoiser returned a value that is not finite at {name_step(timesteps, int(bad.min()))}: "
            "check the weights and the observation"
        )


def marked(x0: Tensor, output: Tensor) -> Tensor:
    """Return x0, and NaN where the network's output was not finite, which clipping would hide."""
    return x0 + 0 * output


def name_step(timesteps: Tensor, step: int) -> str:
    """Name a step of a chain for messages; the noisiest is 0."""
    return f"step {step} (timestep {timesteps[step].item():g})"
