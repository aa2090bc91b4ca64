"""An evaluation's results for a metric logger, such as Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specpolicy.evaluation.tables import budget_table, differences_table, results_table, timing_table
from specpolicy.logging import MetricLogger

FILES = ("summary.json", "episodes.csv", "chunks.csv", "report.html")


def publish(summary: Mapping[str, Any], plots: Mapping[str, str], output: Path, logger: MetricLogger) -> None:
    """Hand the figures, the tables, the plots, the videos and the files to a logger.

    Args:
        summary: see `summarise`.
        plots: {title: file name in `output`}.
    """
    figures: dict[str, float] = {}
    videos: dict[str, str] = {}
    for arm in summary["arms"]:
        label = arm["label"]
        for name in ("success_rate", "max_coverage", "return", "length", "time_to_success", "successes_per_minute"):
            if arm[name]:
                figures[f"{label}/{name}"] = arm[name]["estimate"]
        if arm["chunk_seconds"]:
            figures |= {f"{label}/chunk_seconds_{name}": value for name, value in arm["chunk_seconds"].items()}
            figures |= {f"{label}/{name}": arm[name] for name in ("calls", "rows", "network_share")}
        for name in ("late_share", "starved_share", "observation_age", "switch_jump"):
            if arm["timing"][name] is not None:
                figures[f"{label}/{name}"] = arm["timing"][name]
        videos |= {f"videos/{label}-{video['seed']}": video["path"] for video in arm["videos"]}
    logger.summary(figures)
    tables = {
        "results": results_table(summary),
        "timing": timing_table(summary),
        "differences": differences_table(summary),
        "budgets": budget_table(summary),
    }
    for name, (columns, *rows) in tables.items():
        if rows:
            logger.log_table(name, columns, rows)
    for title, file in plots.items():
        logger.log_file(f"plots/{title}", output / file)
    for name, path in videos.items():
        logger.log_file(name, output / path)
    for file in FILES:
        logger.log_file(file, output / file)
