"""Draft graphs for a decoder from recorded traces, and the number of drafts that is fastest on this machine."""

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
HELD_OUT = 5  # every fifth trace measures calls, and selects no node


def divide(rule: Rule, division: str) -> list[int]:
    """Numbers of masked positions, rising, up to each of which a graph of its own serves."""
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
    """Graphs of at most `count` nodes, by the number of masked positions of the states they are for."""
    edges = divide(rule, division)
    paths: dict[int, list[Path]] = {edge: [] for edge in edges}
    for path in paths_of(traces):
        paths[edges[bisect.bisect_left(edges, path.masked)]].append(path)
    graphs = {edge: select_graph(mine, count, objective) for edge, mine in paths.items() if mine}
    if not graphs:
        raise SpecpolicyError("there is nothing to draft: the decoder has two steps at most")
    return graphs


def calibrate_graphs(
    traces: Sequence[Trace],
    rule: Rule,
    seconds_by_rows: Mapping[int, float],
    divisions: Sequence[str] | None = None,
    objective: str = "accepted",
    candidates: Sequence[int] = CANDIDATES,
) -> DecoderCalibration:
    """Choose graphs, and how many of their nodes to draft.

    divisions: graphs to try; None: one graph, and one per step where steps differ, else one per level of masking.

    Raises:
        SpecpolicyError: too few traces.
    """
    used = [trace for number, trace in enumerate(traces) if number % HELD_OUT]
    held_out = list(traces[::HELD_OUT])
    if not used:
        raise SpecpolicyError(f"{len(traces)} traces are too few to calibrate on: give at least 2")
    if divisions is None:
        uneven = rule.counts is not None and len(set(rule.counts[:-1])) > 1
        divisions = ("one", "step" if uneven else "level")
    tried = {name: select_graphs(used, rule, max(candidates), name, objective) for name in divisions}
    calls = {
        name: {
            drafts: mean_calls(held_out, rule, {edge: graph.first(drafts) for edge, graph in graphs.items()})
            for drafts in candidates
        }
        for name, graphs in tried.items()
    }
    ordinary = sum(map(len, held_out)) / len(held_out)
    # One graph may be better where few drafts are made, several where there are many: judge by what it costs here.
    name = min(tried, key=lambda name: min(calls[name][d][0] * seconds_by_rows[1 + d] for d in candidates))
    report = {"graphs": name, "traces": len(used), "held_out_traces": len(held_out), "objective": objective}
    return _choose("graph", ordinary, calls[name], seconds_by_rows, report, tried[name])


def calibrate_lookahead(
    drafter: str,
    ordinary: float,
    measure: Callable[[int], tuple[float, float]],
    seconds_by_rows: Mapping[int, float],
    candidates: Sequence[int] = CANDIDATES,
) -> DecoderCalibration:
    """The same for chains and fixed points: `measure(drafts)` decodes some chunks and returns mean calls and rows."""
    return _choose(drafter, ordinary, {drafts: measure(drafts) for drafts in candidates}, seconds_by_rows, {}, {})


def _choose(
    drafter: str,
    ordinary: float,
    calls: Mapping[int, tuple[float, float]],
    seconds_by_rows: Mapping[int, float],
    report: dict,
    graphs: dict[int, DraftGraph],
) -> DecoderCalibration:
    """The number of drafts with the least calls(D) * seconds(1 + D), none among them."""
    cost = {0: ordinary * seconds_by_rows[1]}
    cost |= {drafts: mean * seconds_by_rows[1 + drafts] for drafts, (mean, _) in calls.items()}
    report = {
        **report,
        "calls": {"0": ordinary, **{str(drafts): mean for drafts, (mean, _) in calls.items()}},
        "rows": {"0": ordinary, **{str(drafts): rows for drafts, (_, rows) in calls.items()}},
        "seconds": {str(drafts): seconds for drafts, seconds in cost.items()},
    }
    return DecoderCalibration(drafter, min(cost, key=lambda drafts: cost[drafts]), graphs, report)
