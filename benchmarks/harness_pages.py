"""Write a page of docs/results from the summaries of `specpolicy evaluate`: delay, charged_clock or equivalence.

    python benchmarks/harness_pages.py delay outputs/benchmarks/delay docs/results/delay.md

Reads <results>/<task>/summary.json. Only the part between the two marks of the page is replaced; a missing page is
created. Plots are written beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_figures import Summaries, delay_figure, equivalence_figure, main_conditions
from harness_findings import changes, first_loss, verdicts

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.tables import NONE, differences_table, percent, results_table, timing_table
from specpolicy.evaluation.tables import interval as shown
from specpolicy.files import atomic_path, write_text

BEGIN, END = "<!-- written by benchmarks/{script}: begin -->", "<!-- end -->"


def main(arguments: list[str]) -> int:
    if len(arguments) != 3 or arguments[0] not in PAGES:
        print(f"usage: harness_pages.py {'|'.join(PAGES)} RESULTS PAGE.md", file=sys.stderr)
        return 2
    try:
        write(arguments[0], Path(arguments[1]), Path(arguments[2]))
    except SpecpolicyError as error:
        print(f"harness_pages: {error}", file=sys.stderr)
        return 2
    return 0


def write(kind: str, results: Path, page: Path) -> None:
    """Replace the measured part of `page`."""
    paths = sorted(results.glob("*/summary.json"))
    if not paths:
        raise SpecpolicyError(f"{results} holds no results: run benchmarks/{SCRIPTS[kind]}")
    summaries = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    page.parent.mkdir(parents=True, exist_ok=True)
    begin = BEGIN.format(script=SCRIPTS[kind])
    text = page.read_text(encoding="utf-8") if page.exists() else f"{HEADS[kind]}\n{begin}\n{END}\n"
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise SpecpolicyError(f"{page} lacks the marks '{begin}' and '{END}': put them where the results belong")
    body = "\n\n".join([*PAGES[kind](summaries, results, page), made(summaries)])
    write_text(page, f"{before}{begin}\n\n{body}\n\n{END}{after}")


def delay_page(summaries: Summaries, results: Path, page: Path) -> list[str]:
    """Return success against delay for each task, and against the execution horizon."""
    delays = sorted({condition["delay"] for summary in summaries.values() for condition in main_conditions(summary)})
    rows, swept = [], []
    for task, summary in summaries.items():
        conditions = {condition["delay"]: condition for condition in main_conditions(summary)}
        cells = [_success_and_gap(conditions.get(delay)) for delay in delays]
        rows.append([task, f"{summary['hz']:g} Hz", *cells, first_loss(summary)])
        at = summary["track"]["swept_at"]
        for condition in sorted(
            (a for a in summary["conditions"] if a["delay"] == at), key=lambda a: a["execute_steps"]
        ):
            swept.append([task, str(condition["execute_steps"]), _success_and_gap(condition)])
    parts = [
        f"Success rate with its 95 % Wilson interval, sampler {_sampler(summaries)}; in brackets the share of control "
        "steps that no chunk had an action for.",
        markdown([["task", "rate", *(f"d = {delay}" for delay in delays), "first loss"], *rows]),
        "First loss: the smallest delay at which the paired difference to no delay is below zero (95 % interval).",
        "Paired difference to no delay with its 95 % interval, and McNemar's p of that comparison alone:",
        markdown([["task", *(f"d = {delay}" for delay in delays[1:])], *changes(summaries, delays[1:])]),
        _picture(page, "Success against delay", delay_figure(summaries)),
    ]
    if len(swept) > len(summaries):
        parts += [
            "Success against the execution horizon, at a delay of one control step:",
            markdown([["task", "execution horizon", "success"], *swept]),
        ]
    return parts


def charged_page(summaries: Summaries, results: Path, page: Path) -> list[str]:
    """Return the effect of inference time on each sampler on this machine."""
    parts = []
    for task, summary in summaries.items():
        plot = page.with_name(f"{page.stem}_{task}.png")
        shutil.copyfile(results / task / "plot_success_against_latency.png", plot)
        parts += [
            f"## {task}, control at {summary['hz']:g} Hz, {summary['episodes']} episodes",
            "\n".join(f"- {line}" for line in verdicts(summary)),
            f"![Success against latency, {task}]({plot.name})",
            markdown(results_table(summary, brief=True)),
            markdown(timing_table(summary)),
            markdown(differences_table(summary)),
        ]
    return parts


def equivalence_page(summaries: Summaries, results: Path, page: Path) -> list[str]:
    """Return the comparison of the exact samplers' success with that of sequential DDPM, within the margin."""
    parts = []
    for task, summary in summaries.items():
        margin = f"{100 * summary['margin']:g} points"
        lines = []
        for difference in summary["differences"]:
            tests = difference["equivalence"]
            verdict = "equal" if tests["equivalent"] else "equality not shown"
            lines.append(
                f"- {difference['condition']} and {difference['reference']}: {verdict} within {margin} "
                f"(90 % interval of the difference {tests['low']:+.3f} to {tests['high']:+.3f}, "
                f"p = {tests['p_value']:.2g}, {difference['episodes']} pairs)"
            )
        parts += [
            f"## {task}, {summary['episodes']} episodes",
            "\n".join(lines) or "One sampler alone: there is nothing to compare it with.",
            markdown(_without(results_table(summary, brief=True), ("ms per chunk p50", "p95"))),
        ]
        if lines:
            parts.append(markdown(differences_table(summary)))
    if any(summary["differences"] for summary in summaries.values()):
        parts.append(_picture(page, "Differences in success", equivalence_figure(summaries)))
    return parts


def made(summaries: Summaries) -> str:
    """Return machine, versions and commands."""
    machines = {
        f"{one['cpu']}, {one['cores']} cores, {one['memory_gib']:g} GiB{', ' + one['gpu'] if one['gpu'] else ''}"
        for summary in summaries.values()
        for one in summary["machines"]
    }
    loads = [summary["load_at_start"] for summary in summaries.values()]
    versions = next(iter(summaries.values()))["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    commands = "\n".join(summary["command"] for summary in summaries.values())
    return (
        f"Measured on {'; '.join(sorted(machines))}. Load before each run began: {', '.join(map(str, loads))}. "
        f"{named}.\n\n"
        f"```bash\n{commands}\n```"
    )


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with numbers aligned to the right."""
    head, *rows = table
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sampler(summaries: Summaries) -> str:
    return ", ".join(
        dict.fromkeys(condition["sampler"] for summary in summaries.values() for condition in summary["conditions"])
    )


def _without(table: Sequence[Sequence[str]], columns: Sequence[str]) -> list[list[str]]:
    """Return a table without some columns; here the times, which are those of whole batches."""
    return [[cell for name, cell in zip(table[0], row, strict=True) if name not in columns] for row in table]


def _success_and_gap(condition: Mapping[str, Any] | None) -> str:
    if condition is None:
        return NONE
    gap = f" ({percent(condition['timing']['starved_share'])})" if condition["timing"]["starved_steps"] else ""
    return shown(condition["success_rate"]) + gap


def _picture(page: Path, title: str, figure: Any) -> str:
    path = page.with_suffix(".png")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160)
    return f"![{title}]({path.name})"


PAGES: dict[str, Callable[[Summaries, Path, Path], list[str]]] = {
    "delay": delay_page,
    "charged_clock": charged_page,
    "equivalence": equivalence_page,
}
SCRIPTS = {"delay": "delay_curves.sh", "charged_clock": "charged_clock.sh", "equivalence": "equivalence.sh"}
HEADS = {
    "delay": """# Success against delay

A chunk planned on the observation of control step t is used from step t + d on; a new one is asked for every
max(d, e) steps, e the policy's own execution horizon. The delay is set, not measured: no figure on success depends on
the machine.
""",
    "charged_clock": """# Success when the world does not wait

The simulated world moves on by the time of every single call, rounded up to whole control steps. The times are measured
as the episodes are played or, where the command names a trace, taken one after the other from chunks that were drawn
beforehand on this machine while it did nothing else. "Waits": the same policy and sampler in a world that stands still
during inference.
""",
    "equivalence": """# Exact samplers lose no success

Exact samplers draw from the distribution of sequential DDPM, so that success at zero delay must be the same. Two
one-sided tests on episodes paired by seed (Tango's score statistic) ask whether it is, within a margin.
""",
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
