"""Cost of chunks: their times, as measured or from a recorded trace, and their network calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specpolicy.control.trace import check_trace, read_counts, read_trace
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import EXPERT
from specpolicy.evaluation.results import Results, Row
from specpolicy.evaluation.runner import Evaluation


@dataclass(frozen=True)
class Recorded:
    """One sampler's chunks in a latency trace.

    The chunks that were played cannot stand in for these: they may have used other draft lengths.

    Attributes:
        seconds: (M,) seconds of each chunk.
        calls: (M,) network calls of each chunk; None if the trace does not say.
        rows: (M,) rows of each chunk; None if the trace does not say.
    """

    seconds: np.ndarray
    calls: np.ndarray | None
    rows: np.ndarray | None


def recorded(evaluation: Evaluation) -> dict[str, Recorded]:
    """Return the trace's chunks for each sampler that is charged the times of a trace."""
    found = {}
    for condition in evaluation.conditions:
        if condition.trace is not None and condition.sampler not in found:
            check_trace(condition.trace, condition.trace_digest)
            counts = read_counts(condition.trace, condition.sampler)
            found[condition.sampler] = Recorded(
                read_trace(condition.trace, condition.sampler), counts.get("calls"), counts.get("rows")
            )
    return found


def chunk_rows(evaluation: Evaluation, results: Results) -> dict[str, list[Row]]:
    """Return the rows of `chunks.csv` that belong to the evaluation, by condition."""
    seeds = set(evaluation.seeds)
    chunks: dict[str, list[Row]] = {condition.label: [] for condition in evaluation.conditions}
    for row in results.chunks.rows:
        if row["condition"] in chunks and int(row["seed"]) in seeds:
            chunks[row["condition"]].append(row)
    return chunks


def chunk_seconds(condition: Condition, rows: Sequence[Row], trace: Recorded | None) -> np.ndarray:
    """Return (M,) seconds per chunk: as charged to the world, or as measured if the world waits."""
    return condition.factor * (_column(rows, "seconds") if trace is None else trace.seconds)


def chunk_costs(condition: Condition, rows: Sequence[Row], trace: Recorded | None) -> dict[str, Any]:
    """Return a condition's figures per chunk for the summary; None for what is not known."""
    if not rows:  # the reset solved every episode
        nothing = ("chunk_seconds", "calls", "rows", "network_share", "encode_share")
        return {"chunks": 0, **dict.fromkeys(nothing)}
    calls, states = (trace.calls, trace.rows) if trace else (_column(rows, "calls"), _column(rows, "rows"))
    measured = _column(rows, "seconds").sum()
    seconds = chunk_seconds(condition, rows, trace)
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
        "calls": None if calls is None else float(calls.mean()),
        "rows": None if states is None else float(states.mean()),
        "network_share": None if trace else float(_column(rows, "network_seconds").sum() / measured),
        "encode_share": None if trace else float(_column(rows, "encode_seconds").sum() / measured),
    }


def chunk_figures(evaluation: Evaluation, results: Results) -> dict[str, dict[str, np.ndarray]]:
    """Return `seconds` and `calls` of every chunk of each sampler that calls a network.

    Chunks of all conditions of a sampler are joined, without the conditions' factors. With a trace the figures are
    those of the trace, and `calls` is missing if the trace does not have them.
    """
    traces = recorded(evaluation)
    rows: dict[str, list[Row]] = {}
    chunks = chunk_rows(evaluation, results)
    for condition in evaluation.conditions:
        if evaluation.setup.samplers[condition.sampler]["name"] != EXPERT:
            rows.setdefault(condition.sampler, []).extend(chunks[condition.label])
    figures: dict[str, dict[str, np.ndarray]] = {}
    for sampler, own in rows.items():
        if not own:  # the reset solved every episode
            continue
        if sampler in traces:
            trace = traces[sampler]
            figures[sampler] = {"seconds": trace.seconds} | ({} if trace.calls is None else {"calls": trace.calls})
        else:
            figures[sampler] = {name: _column(own, name) for name in ("seconds", "calls")}
    return figures


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])
