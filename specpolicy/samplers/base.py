"""What every sampler takes and returns: the denoiser, the source of noise, the sample with its statistics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError

Generators = torch.Generator | Sequence[torch.Generator] | None


class Denoiser(Protocol):
    """A network seen by a sampler: (x (N, H, D), t (N,) int64, cond (N, ...) or None) -> (N, H, D)."""

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor: ...


def engine_name(denoiser: object) -> str:
    """Of the engine that runs a denoiser, which calibrations keep their plans by: its `name`, or eager."""
    name = getattr(denoiser, "name", None)  # anything callable is a denoiser: its name may be something else
    return name if isinstance(name, str) else "eager"


def network_of(denoiser: object) -> torch.nn.Module | None:
    """The network behind a denoiser: itself, or what an engine runs; None for a function, of which nothing is known."""
    inside = getattr(getattr(denoiser, "workload", None), "denoiser", denoiser)
    return inside if isinstance(inside, torch.nn.Module) else None


@dataclass
class SampleStatistics:
    """What a sample cost. `calls` (B,) sequential network calls; `rows` (B,) states evaluated for each chunk;
    `accepted` drafts and `evaluated` states, one (B,) tensor each per speculative round, -1 for rows already finished;
    `rejections` (K,) by step, noisiest first;
    `seconds` wall time of the whole sample and `network_seconds` the part spent in the denoiser."""

    calls: Tensor
    rows: Tensor
    accepted: list[Tensor] = field(default_factory=list)
    evaluated: list[Tensor] = field(default_factory=list)
    rejections: Tensor | None = None
    seconds: float = 0.0
    network_seconds: float = 0.0


@dataclass
class Sample:
    """Sampled action chunks: `actions` (B, H, D); `states` (K+1, B, H, D), noisiest first, if asked for."""

    actions: Tensor
    stats: SampleStatistics
    states: Tensor | None = None


@dataclass(frozen=True)
class Chunks:
    """Chunks to be drawn: the initial noise `state` (B, H, D); `cond` with B rows, or None; the source of all other
    randomness, `noise`; `return_states`: whether the states of all steps are wanted."""

    state: Tensor
    cond: Tensor | None
    noise: "NoiseSource"
    return_states: bool = False


class Sampler(Protocol):
    """Draws action chunks from a denoiser and a chain. Samplers are immutable values: reuse them freely."""

    name: str

    def run(
        self,
        denoiser: Denoiser,
        chain: GaussianChain,
        state: Tensor,
        cond: Tensor | None,
        noise: "NoiseSource",
        return_states: bool = False,
    ) -> Sample:
        """Denoise the initial noise `state` (B, H, D); `cond` has B rows or is None."""
        ...


def upload(value: Tensor, device: torch.device) -> Tensor:
    """`value` on `device`, without waiting for what a GPU has still to do."""
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def device_of(denoiser: Any, cond: Tensor | None) -> torch.device:
    """Where a denoiser computes: on the device of its conditions, its own (an engine's), that of its parameters, or
    the CPU."""
    if cond is not None:
        return cond.device
    own = getattr(denoiser, "device", None)
    if isinstance(own, torch.device):
        return own
    if isinstance(denoiser, torch.nn.Module):
        for parameter in denoiser.parameters():
            return parameter.device
    return torch.device("cpu")


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
        return self._draw(torch.randn, shape, rows, self.dtype)

    def uniform(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Uniform numbers in [0, 1), float64: the decisions of a verifier compare small probabilities."""
        return self._draw(torch.rand, shape, rows, torch.float64)

    def _draw(self, draw, shape: tuple[int, ...], rows: Tensor | None, dtype: torch.dtype) -> Tensor:
        generator = self._generator
        if isinstance(generator, list):
            chosen = range(self.batch) if rows is None else rows.tolist()
            drawn = [self._on(generator[row].device, generator[row], draw, shape, dtype) for row in chosen]
            return upload(torch.stack(drawn) if drawn else torch.empty((0, *shape), dtype=dtype), self.device)
        # A CPU generator also serves a GPU sampler: the same seed then gives the same noises on both.
        source = self.device if generator is None else generator.device
        number = self.batch if rows is None else len(rows)
        return upload(self._on(source, generator, draw, (number, *shape), dtype), self.device)

    @staticmethod
    def _on(
        source: torch.device, generator: torch.Generator | None, draw, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        return draw(shape, generator=generator, device=source, dtype=dtype)


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
