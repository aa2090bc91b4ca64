"""Subjects of benchmarks/tokens.py: a policy, its observations, the decoders, and how batches are made."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.policy import load_policy
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.sampler_names import make_sampler
from specpolicy.tokens import Decoded
from specpolicy.tokens.batches import EqualBatches
from specpolicy.tokens.calibration import Trace
from specpolicy.tokens.samplers import TokenSampler

BATCH = 20
DECODERS: dict[str, dict[str, Any]] = {
    "confidence, S = 1, greedy": dict(name="confidence", sampled=False),
    "confidence, S = 1": dict(name="confidence"),
    "candidate confidence, S = 1": dict(name="confidence", confidence="candidate"),
    "threshold 0.7, greedy": dict(name="threshold", sampled=False),
    "threshold 0.7": dict(name="threshold"),
    "confidence, S = 4": dict(name="confidence", tokens_per_step=4),
    "cosine 12": dict(name="cosine"),
}
LOOKAHEAD: dict[str, dict[str, Any]] = {
    "random order, S = 1, chain": dict(name="random_order", drafter="chain"),
    "random order, S = 1, fixed point": dict(name="random_order", drafter="fixed_point"),
    "raster, S = 1, fixed point": dict(name="raster", drafter="fixed_point"),
    "random order, cosine 12, fixed point": dict(name="random_order", steps=12, drafter="fixed_point"),
    "confidence, S = 1, noise by step, chain": dict(name="confidence", noise="step", drafter="chain"),
}


class Subject:
    """A policy, encoded observations to choose graphs on and others to measure on, and traces by decoder.

    Observations are recorded episode by episode. The first half chooses and the second half measures, so that they come
    from different episodes.
    """

    def __init__(self, path: Path, observations: int):
        self.path, self.policy = path, load_policy(path)
        assert self.policy.kind == "tokens", f"{path} is no policy of action tokens"
        self.histories = read_histories(path / FILE, self.policy)
        with torch.inference_mode():
            cond = self.policy.encode(self.histories)
        cond = spread(cond, observations)
        self.choose, self.measure = cond[: len(cond) // 2], cond[len(cond) // 2 :]

    @functools.cache  # noqa: B019  (a subject lives as long as the script)
    def traces(self, name: str, blind: bool = False) -> tuple[list[Trace], list[Trace]]:
        """Return traces to choose graphs on, and traces to measure calls on."""
        generator = torch.Generator().manual_seed(11)
        found = []
        for cond in (self.choose, self.measure):
            parts = [self.policy.bound(sampler(name)).record(part, generator, blind)[0] for part in cond.split(BATCH)]
            found.append([trace for part in parts for trace in part])
        return found[0], found[1]

    def decoded(
        self,
        made: TokenSampler,
        rows: int | None = None,
        precision: torch.dtype | None = None,
        count: int | None = None,
    ) -> Decoded:
        """Decode observations side by side, with the graphs stored beside the policy.

        Args:
            made: the decoder.
            rows: pad every call to a multiple of this number of rows.
            precision: precision of the network; None: its own.
            count: number of measured observations; None: all.
        """
        cond, network = spread(self.measure, count), self._network(precision)
        network = network if rows is None else EqualBatches(network, rows)
        return self.policy.bound(made).decode(cond, generators(len(cond)), network)

    def alone(self, made: TokenSampler, precision: torch.dtype | None, count: int) -> Tensor:
        """Return the tokens of the same observations, each chunk decoded by itself."""
        decoder, network = self.policy.bound(made), self._network(precision)
        parts = zip(spread(self.measure, count).split(1), generators(count), strict=True)
        return torch.cat([decoder.decode(cond, [source], network).tokens for cond, source in parts])

    def gaps(self, made: TokenSampler, count: int) -> Tensor:
        """Return how close the ordinary decoder's choices were to others, in all steps of these chunks."""
        traces, _ = self.policy.bound(made).record(spread(self.measure, count), generators(count))
        return torch.cat([trace.gaps for trace in traces])

    def _network(self, precision: torch.dtype | None) -> Any:
        return self.policy.denoiser if precision is None else Autocast(self.policy.denoiser, precision)


class Autocast:
    """A network in lower precision."""

    def __init__(self, network: Any, precision: torch.dtype):
        self.network, self.precision = network, precision

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.precision):
            return self.network(x, t, cond).float()


def sampler(name: str, **options: Any) -> TokenSampler:
    """Return one of the decoders above."""
    made = make_sampler(**{**{**DECODERS, **LOOKAHEAD}[name], **options})
    assert isinstance(made, TokenSampler)
    return made


def generators(count: int) -> list[torch.Generator]:
    """Return one generator per chunk, so that its noise does not depend on what is decoded beside it."""
    return [torch.Generator().manual_seed(7_000 + chunk) for chunk in range(count)]


def spread(cond: Tensor, count: int | None) -> Tensor:
    """Return `count` observations at equal distances (neighbours are from one episode); all if there are no more."""
    if count is None or count >= len(cond):
        return cond
    return cond[torch.linspace(0, len(cond) - 1, count).round().long()]
