"""Chooses draft graphs for a decoder from recorded traces, and measures calls by the number of drafts."""

import bisect
from collections.abc import Callable, Mapping, Sequence

from specpolicy.errors import SpecpolicyError
from specpolicy.tokens.calibration.calibration import DecoderCalibration
from specpolicy.tokens.calibration.select import mean_calls, select_graph
from specpolicy.tokens.calibration.traces import Path, Trace, paths_of
from specpolicy.tokens.graph import DraftGraph
from specpolicy.tokens.rules import Rule

CANDIDATES = (3, 5, 8, 16, 32, 64)
DIVISIONS = ("one", "level", "step")
LEVELS = 6
HELD_OUT = 5  # every fifth trace measures calls and selects no node


def divide(rule: Rule, division: str) -> list[int]:
    """Return rising numbers of masked positions; each is the upper end of one graph's range."""
    if division == "one":
        return [rule.length]
    if division == "level":
        return sorted({-(-rule.length * level // LEVELS) for level in range(1, LEVELS + 1)})
    if division == "step" and rule.counts is not None:
        return sorted(sum(rule.counts[step:]) for step in range(len(rule.counts)))
    if division == "step":
        raise SpecpolicyError("with a threshold there is no graph per step, since steps have no fixed sizes: use level")
    raise SpecpolicyError(f"graphs={division}: use one of {', '.join(DIVISIONS)}")


def select_graphs(
    traces: Sequence[Trace], rule: Rule, count: int, division: str = "one", objective: str = "accepted"
) -> dict[int, DraftGraph]:
    """Return graphs of at most `count` nodes, by the number of masked positions of their states. There are none where
    the traces have two steps at most, because nothing can be drafted."""
    edges = divide(rule, division)
    paths: dict[int, list[Path]] = {edge: [] for edge in edges}
    for path in paths_of(traces):
        paths[edges[bisect.bisect_left(edges, path.masked)]].append(path)
    return {edge: select_graph(mine, count, objective) for edge, mine in paths.items() if mine}


def calibrate_graphs(
    traces: Sequence[Trace],
    rule: Rule,
    seconds_by_rows: Mapping[int, float],
    divisions: Sequence[str] | None = None,
    objective: str = "accepted",
    candidates: Sequence[int] = CANDIDATES,
) -> DecoderCalibration:
    """Choose graphs, and measure calls by the number of drafted nodes. The number of drafts is not chosen yet.

    Args:
        traces: recorded by `record_traces`.
        rule: the decoder's.
        seconds_by_rows: cost of a call on this machine, to choose among divisions.
        divisions: graphs to try; None: one graph, and one per step where steps differ, else one per level of masking.
        objective: see `select_graph`.
        candidates: numbers of drafts to measure.

    Raises:
        SpecpolicyError: too few traces, or an unknown division or objective.
    """
    used = [trace for number, trace in enumerate(traces) if number % HELD_OUT]
    held_out = list(traces[::HELD_OUT])
    if not used:
        raise SpecpolicyError(f"{len(traces)} traces are too few to calibrate on: give at least 2")
    if divisions is None:
        uneven = rule.counts is not None and len(set(rule.counts[:-1])) > 1
        divisions = ("one", "step" if uneven else "level")
    tried = {name: select_graphs(used, rule, max(candidates), name, objective) for name in divisions}
    steps = sum(map(len, held_out)) / len(held_out)
    calls = {name: _measure(held_out, rule, graphs, candidates, steps) for name, graphs in tried.items()}
    # One graph may be better with few drafts, several with many: compare their cost on this machine.
    name = min(
        tried,
        key=lambda name: min((mean * seconds_by_rows[1 + d] for d, (mean, _) in calls[name].items() if d), default=0.0),
    )
    report = {"graphs": name, "traces": len(used), "held_out_traces": len(held_out), "objective": objective}
    return _report("graph", calls[name], tried[name], report)


def calibrate_lookahead(
    drafter: str, measure: Callable[[int], tuple[float, float]], candidates: Sequence[int] = CANDIDATES
) -> DecoderCalibration:
    """Calibrate chains and fixed points: `measure(drafts)` decodes some chunks and returns mean calls and rows."""
    return _report(drafter, {drafts: measure(drafts) for drafts in (0, *candidates)})


def _measure(
    traces: Sequence[Trace], rule: Rule, graphs: Mapping[int, DraftGraph], candidates: Sequence[int], steps: float
) -> dict[int, tuple[float, float]]:
    """Mean calls and rows by the number of drafts; only for zero drafts, if there is no graph."""
    calls = {0: (steps, steps)}
    for drafts in candidates if graphs else ():
        calls[drafts] = mean_calls(traces, rule, {edge: graph.first(drafts) for edge, graph in graphs.items()})
    return calls


def _report(
    drafter: str,
    calls: Mapping[int, tuple[float, float]],
    graphs: Mapping[int, DraftGraph] | None = None,
    report: Mapping[str, object] | None = None,
) -> DecoderCalibration:
    columns = {
        name: {str(drafts): values[column] for drafts, values in calls.items()}
        for column, name in enumerate(("calls", "rows"))
    }
    return DecoderCalibration(drafter, {}, dict(graphs or {}), {**(report or {}), **columns})
