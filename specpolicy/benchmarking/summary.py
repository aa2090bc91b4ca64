"""`summary.json` of a benchmark: costs of each sampler's chunks, in plain values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from specpolicy.benchmarking.launches import Launches
from specpolicy.benchmarking.measure import Draw
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import plain
from specpolicy.policy import Policy
from specpolicy.sampler_names import AnySampler
from specpolicy.tuning import interpolate_cost

FORMAT = 2
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def summarise(
    policy: Policy,
    samplers: Mapping[str, AnySampler],
    draws: Iterable[Draw],
    seconds_by_rows: Mapping[int, float],
    launches: Mapping[str, Launches],
    reference: str | None = None,
) -> dict[str, Any]:
    """Return the figures of each sampler, in the order of `samplers`.

    `seconds_by_rows`: cost of a call. `launches`: see `measure_launches`. `reference`: the sampler whose time the
    others are compared with; by default the first one.
    """
    reference = check_reference(samplers, reference)
    by_label: dict[str, list[Draw]] = {label: [] for label in samplers}
    for draw in draws:
        by_label[draw.sampler].append(draw)
    expected = np.array([draw.seconds for draw in by_label[reference]])
    most = max(max(draw.call_rows) for found in by_label.values() for draw in found)
    bounds = {label: _bound(found, interpolate_cost(seconds_by_rows, most)) for label, found in by_label.items()}
    return {
        "format": FORMAT,
        "reference": reference,
        "chunks": len(expected),
        "seconds_by_rows": {str(rows): seconds for rows, seconds in seconds_by_rows.items()},
        "samplers": [
            {
                "label": label,
                "sampler": sampler.name,
                **policy.bound(sampler).describe(),
                **_figures(by_label[label], expected),
                "bound": {"seconds": bounds[label], "ratio": bounds[label] / bounds[reference]},
                "launches": {**asdict(launches[label]), "calls": by_label[label][0].calls},
            }
            for label, sampler in samplers.items()
        ],
    }


def check_reference(samplers: Mapping[str, AnySampler], reference: str | None) -> str:
    """Return the label of the sampler that the others are compared with."""
    if reference is not None and reference not in samplers:
        raise SpecpolicyError(f"reference={reference}: expected one of {', '.join(samplers)}")
    return reference or next(iter(samplers))


def describe_network(policy: Policy, trained: bool) -> dict[str, Any]:
    """Describe the timed network, and the size of the encoder before it, for the summary."""
    parameters, encoder = (
        sum(parameter.numel() for parameter in module.parameters()) for module in (policy.denoiser, policy.encoder)
    )
    return {
        "trained": trained,
        "parameters": parameters,
        "encoder_parameters": encoder,
        "options": plain(policy.config.network),
    }


def distribution(values: Sequence[float]) -> dict[str, float]:
    """Return mean, p50, p95, p99 and maximum. A quantile is one of the values: the least that this share does not
    exceed."""
    found = np.asarray(values, dtype=np.float64)
    quantiles = np.quantile(found, list(QUANTILES.values()), method="inverted_cdf")
    return {
        "mean": float(found.mean()),
        **dict(zip(QUANTILES, map(float, quantiles), strict=True)),
        "max": float(found.max()),
    }


def _bound(draws: Sequence[Draw], cost: Tensor) -> float:
    """Return the mean seconds of a chunk's calls alone, if nothing happened between them."""
    return float(np.mean([float(cost[list(draw.call_rows)].sum()) for draw in draws]))


def _figures(draws: Sequence[Draw], expected: np.ndarray) -> dict[str, Any]:
    seconds = np.array([draw.seconds for draw in draws])
    network = np.array([draw.network_seconds for draw in draws])
    # Both chunks of one observation are drawn one after the other, so a slow moment of the machine cancels.
    low, middle, high = np.quantile(seconds / expected, [0.25, 0.5, 0.75])
    return {
        "calls": distribution([draw.calls for draw in draws]),
        "rows": distribution([draw.rows for draw in draws]),
        "seconds": distribution(seconds.tolist()),
        "network_seconds": distribution(network.tolist()),
        "encode_seconds": distribution([draw.encode_seconds for draw in draws]),
        "outside_share": float(1 - network.sum() / seconds.sum()),
        "ratio": {"p25": float(low), "p50": float(middle), "p75": float(high)},
    }
