"""The end of an evaluation: its summary, plots and report, also handed to a logger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specpolicy.evaluation.merging import Plan
    from specpolicy.evaluation.results import Results
    from specpolicy.evaluation.stopping import EarlyStop
    from specpolicy.logging import MetricLogger


def report(plan: Plan, results: Results, output: Path, logger: MetricLogger, stop: EarlyStop | None = None) -> None:
    """Write summary.json, the plots and report.html, hand them to the logger, and print the table."""
    from specpolicy.evaluation.costs import chunk_figures
    from specpolicy.evaluation.plots import write_plots
    from specpolicy.evaluation.publishing import publish
    from specpolicy.evaluation.report import write_report
    from specpolicy.evaluation.settings import SETTINGS, read_settings
    from specpolicy.evaluation.stopping import verdict_lines
    from specpolicy.evaluation.summary import summarise
    from specpolicy.evaluation.tables import results_table, text_table
    from specpolicy.evaluation.world import fingerprint, read_world
    from specpolicy.files import write_text

    verdicts = None if stop is None else stop.summary()
    evaluation, origin = plan.evaluation, read_settings(output / SETTINGS)
    provenance = {**plan.provenance, "machines": [] if origin is None else origin["machines"]}
    if (world := read_world(output)) is not None:
        provenance["fingerprint"] = fingerprint(evaluation, plan.provenance["policy"]["fingerprint"], world)
    summary = summarise(evaluation, results, output, provenance, plan.track, plan.margin, plan.references, verdicts)
    write_text(output / "summary.json", json.dumps(summary, indent=2) + "\n")
    plots = write_plots(summary, chunk_figures(evaluation, results), output)
    page = write_report(summary, plots, output)
    publish(summary, results.episodes.rows, plots, output, logger)
    print(text_table(results_table(summary, brief=True)))
    for line in verdict_lines(verdicts) if verdicts else ():
        print(line)
    print(f"report: {page}")
