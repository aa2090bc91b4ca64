"""What benchmarks/tokens.py measures on: a policy, its observations, the decoders, and how batches are made."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.histories import FILE, read_histories
from specpolicy.loading import load_policy
from specpolicy.samplers import make_sampler
from specpolicy.samplers.base import NoiseSource
from specpolicy.token_policy import TokenPolicy
from specpolicy.tokens import Decoded, decode, masked_start, speculate
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
    """A policy, encoded observations to choose graphs on and others to measure on, and traces by decoder."""

    def __init__(self, path: Path, observations: int):
        self.path, self.policy = path, load_policy(path)
        assert isinstance(self.policy, TokenPolicy), f"{path} is no policy of action tokens"
        self.histories = read_histories(path / FILE, self.policy)
        with torch.inference_mode():
            cond = self.policy.encode({key: values[:observations] for key, values in self.histories.items()})
        self.choose, self.measure = cond[::2], cond[1::2]

    @functools.cache  # noqa: B019  (a subject lives as long as the script)
    def traces(self, name: str, blind: bool = False) -> tuple[list[Trace], list[Trace]]:
        """Traces to choose graphs on, and to measure calls on."""
        generator = torch.Generator().manual_seed(11)
        found = []
        for cond in (self.choose, self.measure):
            parts = [self.policy.record(part, sampler(name), generator, blind)[0] for part in cond.split(BATCH)]
            found.append([trace for part in parts for trace in part])
        return found[0], found[1]

    @torch.inference_mode()
    def decoded(
        self,
        made: TokenSampler,
        rows: int | None = None,
        precision: torch.dtype | None = None,
        count: int | None = None,
    ) -> Decoded:
        """The first `count` observations to measure on, all unless given, decoded side by side; `rows`: every call is
        padded to a multiple of so many."""
        policy, cond = self.policy, self.measure[:count]
        network = policy.denoiser if precision is None else Autocast(policy.denoiser, precision)
        evaluate = policy.network(cond, network if rows is None else EqualBatches(network, rows))
        rule, vocabulary = made.rule(policy.length), policy.tokeniser.bins
        source = NoiseSource(torch.Generator().manual_seed(7), len(cond), policy.device, torch.float32)
        noise, start = rule.draw_noise(vocabulary, source.uniform), masked_start(len(cond), policy.length, vocabulary)
        drafter = made.make_drafter(policy.length)
        if drafter is None:
            return decode(evaluate, rule, noise, start, vocabulary)
        return speculate(evaluate, rule, drafter, noise, start, vocabulary)


class EqualBatches:
    """A network that evaluates batches of one size only, padded with copies of the first row."""

    def __init__(self, network: Any, size: int):
        self.network, self.size = network, size

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        missing = -len(x) % self.size
        x, t, cond = (torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) for part in (x, t, cond))
        parts = zip(x.split(self.size), t.split(self.size), cond.split(self.size), strict=True)
        return torch.cat([self.network(*part) for part in parts])[: len(x) - missing]


class Autocast:
    """A network in lower precision."""

    def __init__(self, network: Any, precision: torch.dtype):
        self.network, self.precision = network, precision

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.precision):
            return self.network(x, t, cond).float()


def sampler(name: str, **options: Any) -> TokenSampler:
    """One of the decoders above."""
    made = make_sampler(**{**{**DECODERS, **LOOKAHEAD}[name], **options})
    assert isinstance(made, TokenSampler)
    return made


@torch.inference_mode()
def alone(subject: Subject, made: TokenSampler, precision: torch.dtype | None, count: int) -> Tensor:
    """Tokens of the ordinary decoder at `count` observations, each chunk by itself: batches of one row."""
    policy, cond, vocabulary = subject.policy, subject.measure[:count], subject.policy.tokeniser.bins
    rule = made.rule(policy.length)
    source = NoiseSource(torch.Generator().manual_seed(7), len(cond), policy.device, torch.float32)
    noise = rule.draw_noise(vocabulary, source.uniform)
    network = policy.denoiser if precision is None else Autocast(policy.denoiser, precision)
    evaluate = policy.network(cond, network)
    tokens = []
    for chunk in range(len(cond)):
        parts = {
            field.name: None if value is None else value[[chunk]]
            for field in dataclasses.fields(noise)
            for value in [getattr(noise, field.name)]
        }
        start = masked_start(1, policy.length, vocabulary)
        shifted = lambda states, owner, chunk=chunk: evaluate(states, owner + chunk)  # noqa: E731
        tokens.append(decode(shifted, rule, dataclasses.replace(noise, **parts), start, vocabulary).tokens)
    return torch.cat(tokens)
