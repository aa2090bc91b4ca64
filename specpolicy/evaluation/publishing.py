"""An evaluation's results for a metric logger, such as Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specpolicy.evaluation.tables import budget_table, differences_table
from specpolicy.logging import MetricLogger

ARM = ("label", "sampler", "clock", "delay", "factor", "execution_horizon", "stitching", "episodes", "successes")
INTERVALS = ("success_rate", "max_coverage", "return", "length", "time_to_success", "successes_per_minute")
COSTS = ("calls", "rows", "network_share")
TIMING = (
    "late_share",
    "expired_share",
    "starved_share",
    "observation_age",
    "observation_age_max",
    "switch_jump",
    "inner_jump",
)
FILES = ("summary.json", "episodes.csv", "chunks.csv", "report.html")


def publish(summary: Mapping[str, Any], plots: Mapping[str, str], output: Path, logger: MetricLogger) -> None:
    """Hand the figures, the tables, the plots, the videos and the files to a logger.

    Args:
        summary: see `summarise`.
        plots: {title: file name in `output`}.
    """
    videos = {
        f"videos/{arm['label']}-{video['seed']}": video["path"] for arm in summary["arms"] for video in arm["videos"]
    }
    rows = [_figures(arm) for arm in summary["arms"]]
    logger.summary(
        {
            f"{row['label']}/{name}": value
            for row in rows
            for name, value in row.items()
            if name not in ARM and value is not None
        }
    )
    # Numbers, not text, so that they can be sorted and plotted there.
    logger.log_table("results", list(rows[0]), [list(row.values()) for row in rows])
    for name, (columns, *lines) in {
        "differences": differences_table(summary),
        "budgets": budget_table(summary),
    }.items():
        if lines:
            logger.log_table(name, columns, lines)
    for title, file in plots.items():
        logger.log_file(f"plots/{title}", output / file)
    for name, path in videos.items():
        logger.log_file(name, output / path)
    for file in FILES:
        logger.log_file(file, output / file)


def _figures(arm: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of an arm under plain names."""
    figures: dict[str, Any] = {name: arm[name] for name in ARM}
    for name in INTERVALS:
        value = arm[name] or {"estimate": None, "low": None, "high": None}
        figures |= {name: value["estimate"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
    times = arm["chunk_seconds"] or dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
    figures |= {f"chunk_seconds_{name}": value for name, value in times.items()}
    figures |= {name: arm[name] for name in COSTS}
    return figures | {name: arm["timing"][name] for name in TIMING}
