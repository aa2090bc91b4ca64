"""A whole benchmark: engine, cost of a call, draft lengths, chunks, summary."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from specpolicy.benchmarking.measure import Draw, measure, measure_launches
from specpolicy.benchmarking.stand_in import random_network
from specpolicy.benchmarking.summary import check_reference, describe_network, summarise
from specpolicy.benchmarking.windows import tune_windows
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.provenance import fingerprint, hardware, load
from specpolicy.machine import versions
from specpolicy.policy import Policy
from specpolicy.policy.histories import Histories
from specpolicy.sampler_names import AnySampler


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark.

    Attributes:
        count: chunks of each sampler.
        seed: of their random numbers.
        engine, precision: see `specpolicy.engines`.
        network: options of another network, with random weights, whose time is measured; None: the policy's own.
        tuned: labels of the samplers that get the fastest draft length of this machine.
        reference: label of the sampler whose time the others are compared with; None: the first.
    """

    count: int = 200
    seed: int = 0
    engine: str = "eager"
    precision: str = "float32"
    network: Mapping[str, Any] | None = None
    tuned: Collection[str] = ()
    reference: str | None = None


def benchmark(
    policy: Policy,
    samplers: Mapping[str, AnySampler],
    histories: Histories,
    settings: Settings = Settings(),
    on_tuned: Callable[[str], object] = lambda label: None,
    on_draw: Callable[[Draw], object] = lambda draw: None,
) -> tuple[dict[str, Any], list[Draw]]:
    """Run the measurements. Return the summary, which lacks only `command` and the policy's path, and all chunks.

    Raises:
        SpecpolicyError: settings that cannot be measured, where possible before any long work begins.
    """
    if not samplers:
        raise SpecpolicyError("there is no sampler to measure: samplers=[ddpm,recycled]")
    reference = check_reference(samplers, settings.reference)
    busy, timed = load(), None
    own: Any = policy.with_engine(settings.engine, precision=settings.precision)
    for sampler in samplers.values():
        own.bound(sampler)  # refuse now a sampler that does not fit the policy
    if settings.network is not None:
        other = random_network(policy, settings.network, settings.seed)
        timed = other.with_engine(settings.engine, precision=settings.precision)
    measured = timed or own
    seen = measured.encode({key: values[0] for key, values in histories.items()})
    seconds_by_rows = measured.seconds_by_rows(seen)
    if settings.tuned:
        chosen: dict[str, Any] = {label: samplers[label] for label in samplers if label in settings.tuned}
        seed = settings.seed + settings.count
        chosen = tune_windows(own, chosen, histories, seconds_by_rows, seed, on_sampler=on_tuned)
        samplers = {**samplers, **chosen}
    launches = measure_launches(own, samplers, histories, settings.seed)
    draws = measure(own, samplers, histories, settings.count, settings.seed, timed, on_draw=on_draw)
    summary = {
        **summarise(own, samplers, draws, seconds_by_rows, launches, reference),
        "policy": {"path": None, "fingerprint": fingerprint(policy)},
        "steps": policy.steps,
        "tokens": policy.tokens,
        "network": describe_network(measured, trained=timed is None),
        "engine": measured.engine_name,
        "precision": settings.precision,
        "device": str(policy.device),
        "threads": torch.get_num_threads(),
        "seed": settings.seed,
        "machine": hardware(),
        "load": busy,
        "versions": versions(),
    }
    return summary, draws
