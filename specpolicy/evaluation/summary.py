"""`summary.json`: the results of an evaluation, with intervals, paired differences and their provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.evaluation import budget, comparisons, costs, statistics
from specpolicy.evaluation.conditions import Condition, method
from specpolicy.evaluation.player import EXPERT
from specpolicy.evaluation.results import Results, Row
from specpolicy.evaluation.runner import Evaluation, video_path
from specpolicy.evaluation.settings import FORMAT
from specpolicy.evaluation.tracks import budgets
from specpolicy.machine import versions

MEANS = ("return", "length", "seconds", "max_coverage")
Played = dict[str, dict[int, Row]]  # rows of episodes.csv by condition and seed


def summarise(
    evaluation: Evaluation,
    results: Results,
    output: Path,
    provenance: Mapping[str, Any],
    track: Mapping[str, Any],
    margin: float,
    references: Sequence[str] = (),
    stopping: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Summarise the requested episodes in plain values ready for JSON.

    Args:
        evaluation: what was asked for.
        results: what was played.
        output: directory of the evaluation, which holds the videos.
        provenance: `policy`, `machines`, `command`, `config` and whatever else should stand in the file.
        track: the track's name and options, and `execute_steps`: the policy's, or the number given in its place.
        margin: margin of the equivalence tests.
        references: labels of the samplers that the others are compared with; empty: the first.
        stopping: verdicts of an evaluation that may have stopped early (`EarlyStop.summary`).
    """
    played = _episodes(evaluation, results)
    chunks, recorded = costs.chunk_rows(evaluation, results), costs.recorded(evaluation)
    return {
        "format": FORMAT,
        "task": evaluation.task_name,
        "track": dict(track),
        "hz": _rate(played),
        "episodes": evaluation.episodes,
        "seed": evaluation.seed,
        "confidence": statistics.CONFIDENCE,
        "margin": margin,
        "conditions": [
            {
                **_condition(condition, evaluation),
                **_outcomes(list(played[condition.label].values())),
                **costs.chunk_costs(condition, chunks[condition.label], recorded.get(condition.sampler)),
                "timing": _timing(list(played[condition.label].values()), chunks[condition.label]),
                "videos": _videos(evaluation, output, condition.label, played[condition.label]),
            }
            for condition in evaluation.conditions
        ],
        "differences": [
            comparisons.difference(played, condition.label, reference.label, kind, margin, MEANS)
            for condition, reference, kind in comparisons.pairs(evaluation.conditions, references)
        ],
        "stopping": None if stopping is None else dict(stopping),
        "budgets": _budgets(evaluation, played, chunks, recorded, budgets(track)),
        "versions": versions(),
        **provenance,
    }


def _episodes(evaluation: Evaluation, results: Results) -> Played:
    seeds = set(evaluation.seeds)
    played: Played = {condition.label: {} for condition in evaluation.conditions}
    for row in results.episodes.rows:
        if row["condition"] in played and int(row["seed"]) in seeds:
            played[row["condition"]][int(row["seed"])] = row
    return played


def _rate(played: Played) -> float | None:
    """Return the task's control steps per second; None if nothing was played."""
    rows = [row for condition in played.values() for row in condition.values() if float(row["seconds"]) > 0]
    return round(float(rows[0]["length"]) / float(rows[0]["seconds"]), 6) if rows else None


def _condition(condition: Condition, evaluation: Evaluation) -> dict[str, Any]:
    options = asdict(condition)
    options["hold"] = None if condition.hold is None else list(condition.hold)
    spec = dict(evaluation.setup.samplers[condition.sampler])
    return {
        "label": condition.label,
        **options,
        "circumstances": condition.circumstances,
        "spec": spec,
        "method": method(spec),
    }


def _outcomes(rows: list[Row]) -> dict[str, Any]:
    solved = np.array([row["success"] == "1" for row in rows])
    seconds = np.array([float(row["seconds"]) for row in rows])
    horizons = sorted({int(row["execute_steps"]) for row in rows})
    begun = seconds > 0  # an episode that the reset solves takes no time, so it says nothing about a rate
    return {
        "episodes": len(rows),
        "successes": int(solved.sum()),
        "execute_steps": horizons[0] if len(horizons) == 1 else horizons,
        "success_rate": asdict(statistics.wilson(int(solved.sum()), len(rows))),
        **{name: _mean(rows, name) for name in MEANS},
        # Only of solved episodes: with the others the mean would depend on when an episode is given up.
        "time_to_success": asdict(statistics.mean_interval(seconds[solved])) if solved.any() else None,
        "successes_per_minute": asdict(statistics.ratio_interval(60.0 * solved[begun], seconds[begun]))
        if begun.any()
        else None,
    }


def _timing(rows: list[Row], chunks: list[Row]) -> dict[str, Any]:
    """Summarise the timing of chunks and control steps over all episodes."""
    steps = sum(int(row["length"]) for row in rows)
    # The first chunk of an episode is there before the world starts.
    delays = [int(row["used_at"]) - int(row["step"]) for row in chunks if row["used_at"] and row["chunk"] != "0"]
    asked = sum(row["chunk"] != "0" for row in chunks)
    planned = [int(row["length"]) - int(row["starved_steps"]) for row in rows]
    switches = [int(row["switches"]) for row in rows]
    # The first planned step of each chunk follows no action of the same chunk.
    inner = [max(0, steps - 1 - switched) for steps, switched in zip(planned, switches, strict=True)]
    return {
        "delay_steps": {"mean": float(np.mean(delays)), "max": max(delays)} if delays else None,
        "late_share": sum(int(row["late_chunks"]) for row in rows) / asked if asked else None,
        "longest_run_of_late_chunks": max(int(row["longest_run_of_late_chunks"]) for row in rows),
        # Not counted as delays: these chunks came after the last step that they have an action for.
        "expired_share": sum(int(row["expired_chunks"]) for row in rows) / asked if asked else None,
        "starved_steps": sum(int(row["starved_steps"]) for row in rows),
        "starved_share": sum(int(row["starved_steps"]) for row in rows) / steps if steps else None,
        "observation_age": _weighted(rows, "observation_age_mean", planned),
        "observation_age_max": max(
            (float(row["observation_age_max"]) for row in rows if row["observation_age_max"]), default=None
        ),
        "switch_jump": _weighted(rows, "switch_jump_mean", switches),
        "inner_jump": _weighted(rows, "inner_jump_mean", inner),
    }


def _weighted(rows: list[Row], name: str, weights: Sequence[int]) -> float | None:
    """Return the mean of the episodes' means, weighted by the number of values in each."""
    known = [(float(row[name]), weight) for row, weight in zip(rows, weights, strict=True) if row[name] and weight]
    if not known:
        return None
    values, counts = map(np.array, zip(*known, strict=True))
    return float(np.average(values, weights=counts))


def _mean(rows: list[Row], name: str) -> dict[str, float] | None:
    values = [float(row[name]) for row in rows if row[name] != ""]
    return asdict(statistics.mean_interval(np.array(values))) if values else None


def _budgets(
    evaluation: Evaluation,
    played: Played,
    chunks: dict[str, list[Row]],
    recorded: Mapping[str, costs.Recorded],
    budgets_ms: list[float],
) -> list[dict[str, Any]]:
    """Return each method's success within each budget; "settings" is empty if no setting keeps it."""
    if not budgets_ms:
        return []
    methods: dict[str, list[budget.Setting]] = {}
    for condition in evaluation.conditions:
        seconds = costs.chunk_seconds(condition, chunks[condition.label], recorded.get(condition.sampler))
        if not len(seconds) or evaluation.setup.samplers[condition.sampler]["name"] == EXPERT:
            continue  # the scripted expert has no settings
        outcomes = np.array([played[condition.label][seed]["success"] == "1" for seed in evaluation.seeds])
        name = method(evaluation.setup.samplers[condition.sampler])
        name = name if condition.stitching == "continue_chunk" else f"{name} {condition.stitching}"
        methods.setdefault(name, []).append(
            budget.Setting(condition.label, float(np.quantile(seconds, 0.95)), outcomes)
        )
    found = []
    for name, milliseconds, choice in budget.choices(methods, budgets_ms):
        solved = 0 if choice is None else int(choice.outcomes.sum())
        found.append(
            {
                "method": name,
                "budget_ms": milliseconds,
                "settings": [] if choice is None else list(choice.settings),
                "successes": solved,
                "success_rate": None if choice is None else asdict(statistics.wilson(solved, len(choice.outcomes))),
            }
        )
    return found


def _videos(evaluation: Evaluation, output: Path, label: str, episodes: Mapping[int, Row]) -> list[dict[str, Any]]:
    """List the videos in the output directory, by paths relative to it."""
    found = []
    for seed in sorted(episodes):
        path = video_path(output, label, seed)
        if path.exists():
            success = episodes[seed]["success"] == "1"
            found.append({"seed": seed, "success": success, "path": path.relative_to(output).as_posix()})
    return found
