"""Tables of benchmarks/tokens.py for one policy: calls, shapes of drafts, exactness, hits, time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from token_subject import DECODERS, LOOKAHEAD, Subject, sampler

from specpolicy.benchmarking.measure import measure
from specpolicy.tokens import DraftGraph, analytic_graph
from specpolicy.tokens.calibration import mean_calls, paths_of, replay, select_graphs, select_tree
from specpolicy.tokens.rules import NEAR
from specpolicy.tuning import time_calls

DRAFTS = (3, 8, 16, 64)


def calls_table(subject: Subject, count: int) -> list[list[str]]:
    """Return calls and rows of a chunk by number of drafts.

    For graphs traces are replayed; for look-ahead `count` chunks are decoded.
    """
    table = [["decoder", "ordinary", *(f"D = {drafts}" for drafts in DRAFTS)]]
    for name in DECODERS:
        chosen, measured = subject.traces(name)
        rule = sampler(name).rule(subject.policy.tokens)
        graphs = select_graphs(chosen, rule, max(DRAFTS), "step" if DECODERS[name]["name"] == "cosine" else "one")
        found = [
            mean_calls(measured, rule, {m: graph.first(drafts) for m, graph in graphs.items()}) for drafts in DRAFTS
        ]
        ordinary = sum(map(len, measured)) / len(measured)
        table.append([name, f"{ordinary:.1f}", *(_calls(calls, rows, ordinary) for calls, rows in found)])
    for name in LOOKAHEAD:
        ordinary = float(subject.decoded(sampler(name, drafts=0, drafter=None), count=count).calls.double().mean())
        cells = []
        for drafts in DRAFTS:
            out = subject.decoded(sampler(name, drafts=drafts), count=count)
            cells.append(_calls(float(out.calls.double().mean()), float(out.rows.double().mean()), ordinary))
        table.append([name, f"{ordinary:.1f}", *cells])
    return table


def shapes_table(subject: Subject, count: int, name: str = "confidence, S = 1") -> list[list[str]]:
    """Return calls of a chunk for graph, tree, chain and other shapes with the same number of drafts."""
    chosen, measured = subject.traces(name)
    rule = sampler(name).rule(subject.policy.tokens)
    most = max(DRAFTS)
    blind_chosen, blind = subject.traces(name, True)
    lines: dict[str, Any] = {
        "one graph": (measured, select_graphs(chosen, rule, most)),
        "a graph per level of masking (6)": (measured, select_graphs(chosen, rule, most, "level")),
        "one graph, chosen by own and parents' counts": (
            measured,
            select_graphs(chosen, rule, most, "one", "own_and_parents"),
        ),
        "one graph, ranks that ignore the noise": (blind, select_graphs(blind_chosen, rule, most)),
        "one graph without calibration": (measured, None),
        "chain": (
            measured,
            {rule.length: DraftGraph(tuple(tuple((p, 0) for p in range(d)) for d in range(1, most + 1)))},
        ),
    }
    table = [["drafts", *(f"D = {drafts}" for drafts in DRAFTS)]]
    for label, (traces, graphs) in lines.items():
        cells = []
        for drafts in DRAFTS:
            if graphs is None:
                used = {rule.length: analytic_graph(rule, rule.length, drafts)}
            else:
                used = {masked: graph.first(drafts) for masked, graph in graphs.items()}
            cells.append(f"{mean_calls(traces, rule, used)[0]:.1f}")
        table.append([label, *cells])
    trees = [select_tree(paths_of(chosen), drafts) for drafts in DRAFTS]
    cells = [f"{sum(replay(t, rule, None, tree).calls for t in measured) / len(measured):.1f}" for tree in trees]
    table.insert(2, ["one tree", *cells])
    pruned = []
    for keep in DRAFTS:
        calls = subject.decoded(sampler(name, drafts=most, keep=keep), count=count).calls if keep < most else None
        pruned.append("" if calls is None else f"{float(calls.double().mean()):.1f}")
    table.append([f"of {most} nodes the D best at run time", *pruned])
    return table


def exactness_table(subject: Subject, count: int) -> list[list[str]]:
    """Return how many chunks have the ordinary decoder's tokens, and how close ties came."""
    table = [
        [
            "decoder, D = 8",
            "equal batches",
            "batches as they come",
            "bfloat16, as they come",
            f"steps with a gap < {NEAR:g}",
        ]
    ]
    for name in {**DECODERS, **LOOKAHEAD}:
        ordinary = {"drafts": 0, "drafter": None}
        cells = []
        for rows, precision in ((32, None), (None, None), (None, torch.bfloat16)):
            # None: batches as they come. Chunks decoded alone make smaller batches, which round differently.
            if rows is None:
                expected = subject.alone(sampler(name, **ordinary), precision, count)
            else:
                expected = subject.decoded(sampler(name, **ordinary), rows, count=count).tokens
            found = subject.decoded(sampler(name, drafts=8), rows, precision, count).tokens
            cells.append(f"{int((expected == found).all(dim=1).sum())} of {count}")
        gaps = subject.gaps(sampler(name, **ordinary), count)
        table.append([name, *cells, f"{int((gaps < NEAR).sum())} of {len(gaps)}"])
    return table


def hits_tables(subject: Subject) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield how often the first draft of a chain is right: by step, and its tokens by action dimension."""
    name, dims = "cosine 12", subject.policy.action_dim
    traces = subject.traces(name)[1]
    steps = len(traces[0]) - 2
    right = torch.zeros(steps)
    for trace in traces:
        for step in range(steps):
            added = trace.added(step, step + 1)
            right[step] += all(rank == 0 for _, rank in added) and max(place for place, _ in added) < len(added)
    cells = [f"{value:.2f}" for value in (right / len(traces)).tolist()]
    yield (
        f"First draft of a chain accepted, by step ({name})",
        [["step", *map(str, range(2, steps + 2))], ["share", *cells]],
    )
    table = [["decoder", *(f"dimension {dim}" for dim in range(dims))]]
    for name in ("confidence, S = 1", "cosine 12"):
        hit, seen = torch.zeros(dims), torch.zeros(dims)
        for trace in subject.traces(name)[1]:
            for step in range(len(trace) - 1):
                positions = (trace.step == step + 1).nonzero().flatten()
                hit.index_add_(0, positions % dims, (trace.rank[step, positions] == 0).float())
                seen.index_add_(0, positions % dims, torch.ones(len(positions)))
        table.append([name, *(f"{value:.2f}" for value in (hit / seen.clamp(min=1)).tolist())])
    yield "Tokens guessed right one step ahead, by action dimension (for an arm, the last one is the gripper)", table


@torch.inference_mode()
def time_tables(subject: Subject, count: int) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the time of a call by its rows, and the time of a chunk by its drafts."""
    policy = subject.policy
    rows = (1, 2, 4, 6, 9, 17, 33, 65)
    calls = {
        number: functools.partial(policy.denoiser, *policy.example(number, subject.measure[:1])) for number in rows
    }
    cost = time_calls(calls, policy.device)
    frames = torch.zeros(1, 0, subject.measure.shape[2])
    frame = policy.denoiser.frame
    policy.denoiser.frame = torch.nn.Parameter(frame[:0])
    bare = {number: functools.partial(policy.denoiser, *policy.example(number, frames)) for number in rows}
    without = time_calls(bare, policy.device)
    policy.denoiser.frame = frame
    yield (
        "Time of one network call",
        [
            ["rows", *map(str, rows)],
            ["ms", *(f"{1e3 * cost[number]:.2f}" for number in rows)],
            ["ms without the observation in front", *(f"{1e3 * without[number]:.2f}" for number in rows)],
        ],
    )
    names = ("confidence, S = 1", "confidence, S = 4", "cosine 12", "random order, S = 1, fixed point")
    table = [["decoder, ms a chunk", "ordinary", *(f"D = {drafts}" for drafts in DRAFTS)]]
    for name in names:
        options: list[dict[str, Any]] = [dict(drafts=0, drafter=None), *(dict(drafts=drafts) for drafts in DRAFTS)]
        made = {str(each["drafts"]): sampler(name, **each) for each in options}
        draws = measure(policy, made, subject.histories, count)
        total = {label: sum(draw.seconds for draw in draws if draw.sampler == label) for label in made}
        table.append([name, *(f"{1e3 * seconds / count:.0f}" for seconds in total.values())])
    yield f"Wall time of a chunk, mean of {count}; decoders and drafts take turns", table


def chosen_table(subject: Subject) -> list[list[str]]:
    """Return what calibration chose, by machine."""
    table = [["decoder", "machine", "drafter", "drafts", "calls", "calls without drafts"]]
    calibration = subject.policy.calibration
    for distribution, found in ({} if calibration is None else calibration.decoders).items():
        calls = found.report["calls"]
        for machine, drafts in found.drafts.items():
            chosen = str(drafts) if drafts else "0: none pay here"
            table.append(
                [distribution, machine, found.drafter, chosen, f"{calls[str(drafts)]:.1f}", f"{calls['0']:.1f}"]
            )
    return table


def _calls(calls: float, rows: float, ordinary: float) -> str:
    return f"{calls:.1f} ({ordinary / calls:.2f}x; {rows:.0f} rows)"
