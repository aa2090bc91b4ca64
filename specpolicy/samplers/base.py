"""What samplers are: options that are bound to a setting, and then draw chunks, each with what it cost."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.engines.base import Denoiser as Denoiser  # samplers' users find it here
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model

if TYPE_CHECKING:
    from specpolicy.samplers.recycled.calibration import Calibration

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class SampleStatistics:
    """What a sample cost.

    Attributes:
        calls: (B,) sequential network calls of each chunk.
        rows: (B,) states evaluated for each chunk.
        accepted: drafts, one (B,) tensor for each speculative round, -1 for rows already finished.
        evaluated: states, likewise.
        rejections: (K,) by step, noisiest first; None of samplers that reject nothing.
        rows_by_call: states of each call, for all chunks together.
        seconds: wall time of the whole sample.
        network_seconds: the part of it that was spent in the denoiser; where an engine captured more than the denoiser,
            as rounds on a GPU, in all of that.
    """

    calls: Tensor
    rows: Tensor
    accepted: list[Tensor] = field(default_factory=list)
    evaluated: list[Tensor] = field(default_factory=list)
    rejections: Tensor | None = None
    rows_by_call: tuple[int, ...] = ()
    seconds: float = 0.0
    network_seconds: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Sampled action chunks: `actions` (B, H, D); `states` (K+1, B, H, D), noisiest first, if asked for."""

    actions: Tensor
    stats: SampleStatistics
    states: Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """What a sampler is bound to: all that stays the same from chunk to chunk.

    Attributes:
        model: the network; draws call a `fresh` one.
        chain: of the policy; a sampler may walk another one of the same training process.
        shape: (H, D) of a chunk.
        calibration: of the policy, for samplers that want one.
        draft_denoiser: a smaller denoiser, for independent drafts.
        draft_head: a correction head, for corrected drafts.
        dtype: of the states.
    """

    model: Model
    chain: GaussianChain
    shape: torch.Size
    calibration: "Calibration | None" = None
    draft_denoiser: Denoiser | None = None
    draft_head: Any = None
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the network computes, and the states are."""
        return self.model.device

    @property
    def backend(self) -> str:
        """What plans of a calibration hold here, see `backend_name`."""
        return self.model.backend


class NoiseSource:
    """All randomness of a sampler: one generator for the batch, or one per row.

    With one generator per row, a row's noises do not depend on which other rows are in the batch.
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
        """(count, B, *shape): what as many calls of `normal` return."""
        drawn = [self._draw(torch.randn, shape, None, self.dtype) for _ in range(count)]
        return upload(torch.stack(drawn), self.device)

    def uniform(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Uniform numbers in [0, 1), float64: the decisions of a verifier compare small probabilities."""
        return upload(self._draw(torch.rand, shape, rows, torch.float64), self.device)

    def _draw(self, draw, shape: tuple[int, ...], rows: Tensor | None, dtype: torch.dtype) -> Tensor:
        """On the device of the generator. A CPU generator also serves a GPU sampler: the same seed then gives the same
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
    """What is drawn at once.

    Attributes:
        state: (B, H, D) the initial noise.
        cond: conditions of B rows, or None.
        noise: where all other random numbers come from.
        return_states: whether the states on the way are wanted.
    """

    state: Tensor
    cond: Tensor | None
    noise: NoiseSource
    return_states: bool = False


Draw = Callable[[Model, Chunks], Sample]  # the model counts the calls of this draw


class Sampler(ABC):
    """Draws action chunks: a frozen dataclass of options, checked when it is made. Immutable, so reuse it freely."""

    name: ClassVar[str]

    @abstractmethod
    def bind(self, setting: Setting) -> Draw:
        """What draws chunks in a setting. All that depends on options, chain, engine and calibration is settled here.

        Several threads may draw with it at once.

        Raises:
            SpecpolicyError: options, chain and calibration that do not go together.
        """

    def learnt(self, setting: Setting, backend: str) -> Iterator[Any]:
        """What it takes of a setting that was made beside the weights: modules, and settings in plain values.

        Args:
            setting: that it would be bound to.
            backend: what will run the network, see `backend_name`.
        """
        return iter(())


def upload(value: Tensor, device: torch.device) -> Tensor:
    """`value` on `device`, without waiting for what a GPU has still to do."""
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


def name_step(timesteps: Tensor, step: int) -> str:
    """A step of a chain, the noisiest is 0, as messages call it."""
    return f"step {step} (timestep {timesteps[step].item():g})"
