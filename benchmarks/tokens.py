"""Measure the decoders of policies of action tokens and write docs/results/tokens.md.

    python benchmarks/tokens.py checkpoints/lift_tokens checkpoints/can_tokens checkpoints/push_t_tokens
        --evaluations outputs/checkpoints/can_tokens-evaluation outputs/checkpoints/can-evaluation
    python benchmarks/tokens.py checkpoints/can_tokens --observations 20 --output outputs/tokens.md

Each policy needs the recorded observations and the calibration that `specpolicy calibrate` leaves beside it. Half of
the observations choose the graphs, and the other half measures. What an interrupted run has finished stays in `--work`
and is not measured again for the same options, weights, graphs and observations. `--evaluations` are outputs of
`specpolicy evaluate` to put side by side: success of token and of diffusion policies against calls and time.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from token_subject import DECODERS, LOOKAHEAD, Subject, sampler

from specpolicy.benchmark.report import SUMMARY
from specpolicy.benchmark.table import markdown_table
from specpolicy.evaluation.provenance import fingerprint, hardware, load
from specpolicy.files import write_text
from specpolicy.histories import FILE
from specpolicy.loading import load_policy
from specpolicy.tokens import DraftGraph, analytic_graph
from specpolicy.tokens.calibration import mean_calls, paths_of, replay, select_graphs, select_tree
from specpolicy.tokens.calibration.calibration import FILE as GRAPHS
from specpolicy.tokens.calibration.cost import time_calls
from specpolicy.tokens.rules import NEAR

DRAFTS = (3, 8, 16, 64)


def calls_table(subject: Subject, count: int) -> list[list[str]]:
    """Calls and rows of a chunk by the number of drafts: graphs by replay of traces, look-ahead by decoding `count`."""
    table = [["decoder", "ordinary", *(f"D = {drafts}" for drafts in DRAFTS)]]
    for name in DECODERS:
        chosen, measured = subject.traces(name)
        rule = sampler(name).rule(subject.policy.length)
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
    """Graph, tree, chain and what else could be, with as many drafts: calls of a chunk."""
    chosen, measured = subject.traces(name)
    rule = sampler(name).rule(subject.policy.length)
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
    """Chunks whose tokens are those of the ordinary decoder, and how near ties came."""
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
            # As they come: one chunk at a time would be batches of one row, which round otherwise than others.
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
    """How often the first draft of a chain is right: by step, and its tokens by action dimension."""
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
    yield "Token guessed right one step ahead, by action dimension (of an arm the last one is the gripper)", table


@torch.inference_mode()
def time_tables(subject: Subject, count: int) -> Iterator[tuple[str, list[list[str]]]]:
    """What a call costs by its rows, and what a chunk takes by its drafts."""
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
        "One call of the network",
        [
            ["rows", *map(str, rows)],
            ["ms", *(f"{1e3 * cost[number]:.2f}" for number in rows)],
            ["ms without the observation in front", *(f"{1e3 * without[number]:.2f}" for number in rows)],
        ],
    )
    names = ("confidence, S = 1", "confidence, S = 4", "cosine 12", "random order, S = 1, fixed point")
    table = [["decoder, ms a chunk", "ordinary", *(f"D = {drafts}" for drafts in DRAFTS)]]
    chosen = [made % len(next(iter(subject.histories.values()))) for made in range(count)]
    for name in names:
        options: list[dict[str, Any]] = [dict(drafts=0, drafter=None), *(dict(drafts=drafts) for drafts in DRAFTS)]
        made = [sampler(name, **each) for each in options]
        total = [0.0] * len(made)
        for number in chosen:
            history = {key: values[number] for key, values in subject.histories.items()}
            for place, each in enumerate(made):
                start = time.perf_counter()
                policy.predict(history, each, torch.Generator().manual_seed(number))
                total[place] += time.perf_counter() - start
        table.append([name, *(f"{1e3 * seconds / count:.0f}" for seconds in total)])
    yield f"Wall time of a chunk, mean of {count}, decoders and drafts taking turns", table


def chosen_table(subject: Subject) -> list[list[str]]:
    """What calibration chose, by machine."""
    table = [["decoder", "machine", "drafter", "drafts", "calls", "calls without drafts"]]
    calibration = subject.policy.calibration
    for law, found in ({} if calibration is None else calibration.decoders).items():
        calls = found.report["calls"]
        for machine, drafts in found.drafts.items():
            chosen = str(drafts) if drafts else "0: none pay here"
            table.append([law, machine, found.drafter, chosen, f"{calls[str(drafts)]:.1f}", f"{calls['0']:.1f}"])
    return table


def success_table(outputs: list[Path]) -> list[list[str]]:
    """Success against calls and time, from evaluations of whatever policies.

    Policies execute different parts of a chunk, so time stands by executed action, too.
    """
    costs = ["actions executed", "calls a chunk", "rows", "ms a chunk (p50)", "ms an action"]
    table = [["task", "policy", "sampler", "episodes", "success", *costs, "seed"]]
    for output in outputs:
        summary = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
        policy = Path((summary["policy"] or {}).get("path") or "expert").name
        for arm in summary["arms"]:
            rate = arm["success_rate"]
            executed, cost = arm["execution_horizon"], ["", "", "", ""]
            if arm.get("calls") is not None:
                ms = 1e3 * arm["chunk_seconds"]["p50"]
                cost = [f"{arm['calls']:.1f}", f"{arm['rows']:.0f}", f"{ms:.0f}", f"{ms / executed:.1f}"]
            success = f"{rate['estimate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
            table.append(
                [
                    summary["task"],
                    policy,
                    arm["label"],
                    str(arm["episodes"]),
                    success,
                    str(executed),
                    *cost,
                    str(summary["seed"]),
                ]
            )
    return table


def section(path: Path, observations: int, timed: int, compared: int) -> str:
    """The part of the page for one policy."""
    subject = Subject(path, observations)
    policy, compared = subject.policy, min(compared, len(subject.measure))
    parameters = sum(parameter.numel() for parameter in policy.denoiser.parameters())
    parts = [
        f"## {path.name}",
        f"{policy.horizon} actions of {policy.action_dim} dimensions, {policy.length} tokens of "
        f"{policy.tokeniser.bins} {policy.tokeniser.kind} bins; {parameters / 1e6:.2f} M parameters. "
        f"{len(subject.measure)} observations to measure on, {len(subject.choose)} others to choose graphs on. Graphs "
        "are replayed against recorded chunks; look-ahead, the best of 64 nodes and comparisons decode "
        f"{compared} chunks.",
        "Sequential calls of a chunk (in brackets how many times fewer, then rows):",
        markdown_table(calls_table(subject, compared)),
        "Calls of *confidence, S = 1* by what is drafted:",
        markdown_table(shapes_table(subject, compared)),
        "Chunks with the tokens of the ordinary decoder. *Equal batches*: both decoders evaluate batches of 32 rows. "
        "*As they come*: the ordinary decoder has batches of one row, the speculative one of many.",
        markdown_table(exactness_table(subject, compared)),
    ]
    for title, table in [*hits_tables(subject), *time_tables(subject, timed)]:
        parts += [f"{title}:", markdown_table(table)]
    parts += [
        "What `specpolicy calibrate` chose on each machine, by calls(D) x time(1 + D rows):",
        markdown_table(chosen_table(subject)),
    ]
    return "\n\n".join(parts)


def digest(path: Path, options: argparse.Namespace) -> str:
    """What a section depends on, so that one of other weights, graphs, observations or options is not taken for it."""
    found = hashlib.sha256(fingerprint(load_policy(path)).encode())
    found.update(json.dumps([options.observations, options.timed, options.compared, options.threads]).encode())
    for name in (GRAPHS, FILE):
        found.update((path / name).read_bytes())
    return found.hexdigest()[:12]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Measure the decoders of policies of action tokens.")
    parser.add_argument("policies", nargs="+", type=Path)
    parser.add_argument("--observations", type=int, default=400, help="recorded observations to use, at most")
    parser.add_argument("--timed", type=int, default=20, help="chunks whose wall time is measured")
    parser.add_argument("--compared", type=int, default=40, help="chunks of each decoder decoded and compared")
    parser.add_argument("--output", type=Path, default=Path("docs/results/tokens.md"))
    parser.add_argument("--work", type=Path, default=Path("outputs/benchmarks/tokens"), help="keeps what is finished")
    parser.add_argument("--evaluations", nargs="*", type=Path, default=[], help="outputs of specpolicy evaluate")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    busy, machine = load(), hardware()
    sections = []
    for path in options.policies:
        kept = options.work / f"{path.name}-{digest(path, options)}.md"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, section(path, options.observations, options.timed, options.compared))
        sections.append(kept.read_text(encoding="utf-8"))
        print(f"{path.name} is in {kept}", flush=True)
    head = f"""# Action tokens: what drafts save

[tokens.md](../tokens.md) explains the decoders and the drafts. Drafts change no token; they trade calls for rows. On
a CPU a call's time grows with its rows, so fewer calls may well take longer: calls, rows and time stand side by side.
Spiffy's own figures, on language models of billions of parameters: 2.8 to 3.1 times fewer calls alone, up to 7.9 times
together with parallel unmasking. Published robot policies decode in about 12 steps (Discrete Diffusion VLA), which
*cosine 12* stands for.

Measured on {machine["cpu"]}, {machine["cores"]} cores, {options.threads} thread, float32; load of the machine before:
{busy}. Command: `{shlex.join(["python", *sys.argv])}`."""
    if options.evaluations:
        table = markdown_table(success_table(options.evaluations))
        sections.insert(0, f"## Success against calls and time\n\n{table}\n\nIntervals are 95 % Wilson intervals.")
    write_text(options.output, "\n\n".join([head, *sections]) + "\n")
    print(f"wrote {options.output}")


def _calls(calls: float, rows: float, ordinary: float) -> str:
    return f"{calls:.1f} ({ordinary / calls:.2f}x; {rows:.0f} rows)"


if __name__ == "__main__":
    main()
