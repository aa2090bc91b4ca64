"""Measure the decoders of policies of action tokens and write docs/results/tokens.md.

    python benchmarks/tokens.py checkpoints/lift_tokens checkpoints/can_tokens checkpoints/push_t_tokens
        --evaluations outputs/checkpoints/can_tokens-evaluation outputs/checkpoints/can-evaluation
    python benchmarks/tokens.py checkpoints/can_tokens --observations 20 --output outputs/tokens.md

Each policy needs recorded observations and a calibration beside it, as `specpolicy calibrate` writes them. One half of
the observations chooses the graphs; the other half, from other episodes, measures. Finished parts of an interrupted run
stay in `--work` and are not measured again with the same options, weights, graphs and observations. `--evaluations` are
outputs of `specpolicy evaluate` to compare: success of token and diffusion policies against calls and time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from pathlib import Path

import torch
from token_subject import Subject
from token_tables import calls_table, chosen_table, exactness_table, hits_tables, shapes_table, time_tables

from specpolicy.benchmarking.report import SUMMARY
from specpolicy.benchmarking.table import markdown_table
from specpolicy.evaluation.provenance import fingerprint, hardware, load
from specpolicy.files import write_text
from specpolicy.policy import load_policy
from specpolicy.policy.histories import FILE
from specpolicy.tokens.calibration.calibration import FILE as GRAPHS


def success_table(outputs: list[Path]) -> list[list[str]]:
    """Return success against calls and time, from evaluations of any policies.

    Policies execute different parts of a chunk, so time per executed action is given, too.
    """
    costs = ["actions executed", "calls a chunk", "rows", "ms a chunk (p50)", "ms an action"]
    table = [["task", "policy", "sampler", "episodes", "success", *costs, "seed"]]
    for output in outputs:
        summary = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
        policy = Path((summary["policy"] or {}).get("path") or "expert").name
        for condition in summary["conditions"]:
            rate = condition["success_rate"]
            executed, cost = condition["execute_steps"], ["", "", "", ""]
            if condition.get("calls") is not None:
                ms = 1e3 * condition["chunk_seconds"]["p50"]
                cost = [f"{condition['calls']:.1f}", f"{condition['rows']:.0f}", f"{ms:.0f}", f"{ms / executed:.1f}"]
            success = f"{rate['estimate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
            table.append(
                [
                    summary["task"],
                    policy,
                    condition["label"],
                    str(condition["episodes"]),
                    success,
                    str(executed),
                    *cost,
                    str(summary["seed"]),
                ]
            )
    return table


def section(path: Path, observations: int, timed: int, compared: int) -> str:
    """Return the page's section for one policy."""
    subject = Subject(path, observations)
    policy, compared = subject.policy, min(compared, len(subject.measure))
    parameters = sum(parameter.numel() for parameter in policy.denoiser.parameters())
    parts = [
        f"## {path.name}",
        f"{policy.horizon} actions of {policy.action_dim} dimensions, {policy.tokens} tokens of "
        f"{policy.tokeniser.bins} {policy.tokeniser.kind} bins; {parameters / 1e6:.2f} M parameters. "
        f"{len(subject.measure)} observations to measure on and {len(subject.choose)} others to choose graphs on. "
        "Graphs are evaluated by replaying recorded chunks; look-ahead, the best of 64 nodes and comparisons decode "
        f"{compared} chunks.",
        "Sequential calls per chunk (in brackets: how many times fewer, then rows):",
        markdown_table(calls_table(subject, compared)),
        "Calls of *confidence, S = 1* by shape of the drafts:",
        markdown_table(shapes_table(subject, compared)),
        "Chunks with exactly the tokens of the ordinary decoder. *Equal batches*: both decoders evaluate batches of 32 "
        "rows. *As they come*: the ordinary decoder has batches of one row, the speculative one larger batches.",
        markdown_table(exactness_table(subject, compared)),
    ]
    for title, table in [*hits_tables(subject), *time_tables(subject, timed)]:
        parts += [f"{title}:", markdown_table(table)]
    parts += [
        "Choice of `specpolicy calibrate` on each machine, by calls(D) x time(1 + D rows):",
        markdown_table(chosen_table(subject)),
    ]
    return "\n\n".join(parts)


def digest(path: Path, options: argparse.Namespace) -> str:
    """Return a hash of everything that a section depends on: weights, graphs, observations and options."""
    found = hashlib.sha256(fingerprint(load_policy(path)).encode())
    found.update(json.dumps([options.observations, options.timed, options.compared, options.threads]).encode())
    for name in (GRAPHS, FILE):
        found.update((path / name).read_bytes())
    return found.hexdigest()[:12]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Measure the decoders of policies of action tokens.")
    parser.add_argument("policies", nargs="+", type=Path)
    parser.add_argument("--observations", type=int, default=400, help="most recorded observations to use")
    parser.add_argument("--timed", type=int, default=20, help="chunks whose wall time is measured")
    parser.add_argument("--compared", type=int, default=40, help="chunks of each decoder decoded and compared")
    parser.add_argument("--output", type=Path, default=Path("docs/results/tokens.md"))
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/benchmarks/tokens"), help="directory of finished parts"
    )
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
    head = f"""# Action tokens: calls, rows and time with drafts

[tokens.md](../tokens.md) explains the decoders and the drafts. Drafts change no token; they trade calls for rows.
On a CPU a call's time grows with its rows, so fewer calls may take longer. The tables therefore give calls, rows and
time. For comparison, Spiffy reports for language models of billions of parameters: 2.8 to 3.1 times fewer calls alone,
up to 7.9 times together with parallel unmasking. Published robot policies decode in about 12 steps (Discrete Diffusion
VLA); *cosine 12* stands for them.

Measured on {machine["cpu"]}, {machine["cores"]} cores, {options.threads} thread, float32; load of the machine before:
{busy}. Command: `{shlex.join(["python", *sys.argv])}`."""
    if options.evaluations:
        table = markdown_table(success_table(options.evaluations))
        sections.insert(0, f"## Success against calls and time\n\n{table}\n\nIntervals are 95 % Wilson intervals.")
    write_text(options.output, "\n\n".join([head, *sections]) + "\n")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
