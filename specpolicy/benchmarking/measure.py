"""Draws chunks with several samplers in turn and records the cost of each chunk."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from specpolicy.benchmarking.launches import Launches, count_launches
from specpolicy.benchmarking.stand_in import Shadow, StandIn
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import Policy
from specpolicy.policy.histories import Histories
from specpolicy.sampler_names import AnySampler
from specpolicy.samplers import Sample


@dataclass(frozen=True)
class Draw:
    """Cost of one chunk.

    Attributes:
        observation: index of the recorded observation.
        seconds: wall time from the observation to the chunk on the CPU.
        network_seconds: the part of it spent in the network.
        encode_seconds: the part of it spent in encoding the observation, all of whose frames are new.
        calls: sequential calls of the network.
        rows: states evaluated in them.
        call_rows: the same, call by call.
    """

    sampler: str
    observation: int
    seconds: float
    network_seconds: float
    calls: int
    rows: int
    call_rows: tuple[int, ...]
    encode_seconds: float = 0.0


class Subject:
    """A policy under measurement. With `timed`, the time is that of another policy's network (see `StandIn`, and
    `Shadow` for engines that capture)."""

    def __init__(self, policy: Policy, timed: Any = None):
        network = policy.engine or policy.denoiser
        self._stand_in: StandIn | None = None
        self._shadow: Any = None
        if timed is not None and timed.engine is not None and timed.engine.capture is not None:
            self._shadow = Shadow(timed)
        elif timed is not None:
            if timed.config.told != policy.config.told:
                kinds = timed.config.network.kind, policy.config.network.kind
                raise SpecpolicyError(
                    "network: on this engine a {} cannot stand in for the policy's {}, whose conditions do not fit it; "
                    "give other options of the same kind".format(*kinds)
                )
            self._stand_in = StandIn(network, timed.engine or timed.denoiser, policy.device)
        self._policy: Any = copy.copy(policy)
        self._policy.engine = self._stand_in or policy.engine

    def draw(self, label: str, sampler: AnySampler, histories: Histories, observation: int, seed: int) -> Draw:
        """Draw one chunk. The samplers draw for the same observations, and each one pays for the encoding."""
        self._policy.forget_frames()
        start = time.perf_counter()
        out = self._predict(sampler, histories, observation, seed)
        if self._shadow is not None:
            history = {key: values[observation] for key, values in histories.items()}
            start, generator = time.perf_counter(), torch.Generator().manual_seed(seed)
            out = self._shadow.follow(sampler, out, history, generator)
        out.actions.cpu()  # waits for a GPU to finish
        seconds = time.perf_counter() - start
        surplus = 0.0 if self._stand_in is None else self._stand_in.read_surplus()
        return Draw(
            label,
            observation,
            seconds - surplus,
            out.stats.network_seconds - surplus,
            int(out.stats.calls[0]),
            int(out.stats.rows[0]),
            out.stats.rows_by_call,
            out.stats.encode_seconds,
        )

    def count(self, sampler: AnySampler, histories: Histories, observation: int, seed: int) -> Launches:
        """Count the launches of Python for the same chunk, from the observation on, after all preparation."""
        self._predict(sampler, histories, observation, seed)
        network = self._policy.engine or self._policy.denoiser
        return count_launches(lambda: self._predict(sampler, histories, observation, seed), network)

    def _predict(self, sampler: AnySampler, histories: Histories, observation: int, seed: int) -> Sample:
        history = {key: values[observation] for key, values in histories.items()}
        return self._policy.predict(history, sampler, torch.Generator().manual_seed(seed))


def measure(
    policy: Policy,
    samplers: Mapping[str, AnySampler],
    histories: Histories,
    count: int,
    seed: int = 0,
    timed: Policy | None = None,
    warm_up: int = 2,
    on_draw: Callable[[Draw], object] = lambda draw: None,
) -> list[Draw]:
    """Draw `count` chunks with each sampler, batch size 1, on the policy's engine.

    All samplers draw a chunk for an observation before the next observation. Each sampler comes first equally often, so
    other load on the machine affects all alike. Their random numbers begin with the same seed. Warm-up chunks are left
    out.

    Args:
        policy: draws the chunks.
        samplers: by label.
        histories: recorded observations.
        count: chunks of each sampler.
        seed: of the random numbers.
        timed: a policy whose network's time replaces the time of the policy's own, see `StandIn`.
        warm_up: chunks of each sampler that are drawn and left out first.
        on_draw: called with each chunk's cost.

    Raises:
        SpecpolicyError: no chunk, a sampler that does not fit the policy, a network that returns NaN.
    """
    if count < 1:
        raise SpecpolicyError(f"count={count}: give the number of chunks to draw, 1 or more")
    subject, labels = Subject(policy, timed), list(samplers)
    chosen = choose(len(next(iter(histories.values()))), count)
    for number in range(warm_up):
        for label in labels:
            subject.draw(label, samplers[label], histories, chosen[number % count], seed + count + number)
    draws = []
    for number, observation in enumerate(chosen):
        first = number % len(labels)
        for label in labels[first:] + labels[:first]:
            draws.append(subject.draw(label, samplers[label], histories, observation, seed + number))
            on_draw(draws[-1])
    return draws


def measure_launches(
    policy: Policy, samplers: Mapping[str, AnySampler], histories: Histories, seed: int = 0
) -> dict[str, Launches]:
    """Return, by label, the launches of Python for the first chunk that `measure` draws with the same seed."""
    subject, first = Subject(policy), choose(len(next(iter(histories.values()))), 1)[0]
    return {label: subject.count(sampler, histories, first, seed) for label, sampler in samplers.items()}


def choose(available: int, count: int) -> list[int]:
    """Return `count` indices below `available`, evenly spread; if there are fewer, each several times."""
    if count <= available:
        return np.linspace(0, available - 1, count).round().astype(int).tolist()
    return [number % available for number in range(count)]
