"""`summary.json`: what an evaluation came to, with intervals, paired differences and where the figures come from."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.evaluation import statistics
from specpolicy.evaluation.provenance import versions
from specpolicy.evaluation.results import Results, Row
from specpolicy.evaluation.runner import FORMAT, Evaluation, video_path

MEANS = ("return", "length", "seconds", "max_coverage")


def summarise(evaluation: Evaluation, results: Results, output: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Summary of the episodes asked for, in plain values ready for JSON.

    Args:
        provenance: `policy`, `machines`, `command`, `config` and whatever else should stand in the file.
    """
    seeds = set(evaluation.seeds)
    labels = list(evaluation.setup.samplers)
    episodes: dict[str, dict[int, Row]] = {label: {} for label in labels}
    for row in results.episodes.rows:
        if row["sampler"] in episodes and int(row["seed"]) in seeds:
            episodes[row["sampler"]][int(row["seed"])] = row
    chunks: dict[str, list[Row]] = {label: [] for label in labels}
    for row in results.chunks.rows:
        if row["sampler"] in chunks and int(row["seed"]) in seeds:
            chunks[row["sampler"]].append(row)
    return {
        "format": FORMAT,
        "task": evaluation.task_name,
        "clock": "paused",
        "episodes": evaluation.episodes,
        "seed": evaluation.seed,
        "confidence": statistics.CONFIDENCE,
        "samplers": [
            {
                "label": label,
                "sampler": dict(evaluation.setup.samplers[label]),
                **_outcomes(list(episodes[label].values())),
                **_times(chunks[label]),
                "videos": _videos(evaluation, output, label, episodes[label]),
            }
            for label in labels
        ],
        "differences": [_difference(episodes, label, labels[0]) for label in labels[1:]],
        "versions": versions(),
        **provenance,
    }


def chunk_seconds(evaluation: Evaluation, results: Results) -> dict[str, np.ndarray]:
    """Seconds of every chunk of each sampler, (M,)."""
    seeds = set(evaluation.seeds)
    rows = [row for row in results.chunks.rows if int(row["seed"]) in seeds]
    return {
        label: np.array([float(row["seconds"]) for row in rows if row["sampler"] == label])
        for label in evaluation.setup.samplers
    }


def _outcomes(rows: list[Row]) -> dict[str, Any]:
    successes = sum(int(row["success"]) for row in rows)
    return {
        "episodes": len(rows),
        "successes": successes,
        "success_rate": asdict(statistics.wilson(successes, len(rows))),
        **{name: _mean(rows, name) for name in MEANS},
    }


def _times(rows: list[Row]) -> dict[str, Any]:
    if not rows:  # every episode was solved by the reset
        return {"chunks": 0, "chunk_seconds": None, "calls": None, "rows": None, "network_share": None}
    seconds, network, calls, states = (
        np.array([float(row[name]) for row in rows]) for name in ("seconds", "network_seconds", "calls", "rows")
    )
    p50, p95, p99 = map(float, np.quantile(seconds, [0.5, 0.95, 0.99]))
    return {
        "chunks": len(rows),
        "chunk_seconds": {
            "mean": float(seconds.mean()),
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "max": float(max(seconds)),
        },
        "calls": float(calls.mean()),
        "rows": float(states.mean()),
        "network_share": float(network.sum() / seconds.sum()),
    }


def _difference(episodes: Mapping[str, Mapping[int, Row]], label: str, reference: str) -> dict[str, Any]:
    """`label` minus `reference` over the seeds that both have played."""
    common = sorted(episodes[label].keys() & episodes[reference].keys())
    ours, theirs = ([episodes[name][seed] for seed in common] for name in (label, reference))
    solved, solved_there = (np.array([row["success"] == "1" for row in rows]) for rows in (ours, theirs))
    difference: dict[str, Any] = {
        "sampler": label,
        "reference": reference,
        "episodes": len(common),
        "success_rate": asdict(statistics.paired_success_difference(solved, solved_there)),
        "success_p_value": statistics.mcnemar(solved, solved_there),
    }
    for name in MEANS:
        first, second = ([row[name] for row in rows] for rows in (ours, theirs))
        known = "" not in (*first, *second)
        difference[name] = (
            asdict(statistics.paired_mean_difference(np.array(first, float), np.array(second, float)))
            if known
            else None
        )
    return difference


def _mean(rows: list[Row], name: str) -> dict[str, float] | None:
    values = [float(row[name]) for row in rows if row[name] != ""]
    return asdict(statistics.mean_interval(np.array(values))) if values else None


def _videos(evaluation: Evaluation, output: Path, label: str, episodes: Mapping[int, Row]) -> list[dict[str, Any]]:
    """The videos that lie in the output directory, by paths relative to it."""
    found = []
    for seed in sorted(episodes):
        path = video_path(output, label, seed)
        if path.exists():
            success = episodes[seed]["success"] == "1"
            found.append({"seed": seed, "success": success, "path": path.relative_to(output).as_posix()})
    return found
