"""Publishing of an evaluation's results to a metric logger, such as Weights & Biases."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specpolicy.evaluation.results import EPISODE_COLUMNS, Row
from specpolicy.evaluation.tables import budget_table, differences_table
from specpolicy.logging import MetricLogger

CONDITION = ("label", "sampler", "clock", "delay", "factor", "execute_steps", "stitching", "episodes", "successes")
INTERVALS = ("success_rate", "max_coverage", "return", "length", "time_to_success", "successes_per_minute")
COSTS = ("calls", "rows", "network_share", "encode_share")
TIMING = (
    "late_share",
    "expired_share",
    "starved_share",
    "observation_age",
    "observation_age_max",
    "switch_jump",
    "inner_jump",
)
TEXTS = ("task", "condition", "sampler", "clock", "stitching")  # text columns of episodes.csv
FILES = ("summary.json", "episodes.csv", "chunks.csv", "report.html")


def publish(
    summary: Mapping[str, Any],
    episodes: Sequence[Row],
    plots: Mapping[str, str],
    output: Path,
    logger: MetricLogger,
) -> None:
    """Hand the figures, tables, plots, videos and files to a logger.

    Args:
        summary: see `summarise`.
        episodes: rows of episodes.csv; only rows that the summary covers are used.
        plots: {title: file name in `output`}.
        output: directory of the evaluation.
        logger: receives everything.
    """
    videos = {
        f"videos/{condition['label']}-{video['seed']}": video["path"]
        for condition in summary["conditions"]
        for video in condition["videos"]
    }
    rows = [_figures(condition) for condition in summary["conditions"]]
    logger.summary(
        {
            f"{row['label']}/{name}": value
            for row in rows
            for name, value in row.items()
            if name not in CONDITION and value is not None
        }
    )
    # Numbers, not text, so that the logger can sort and plot them.
    logger.log_table("results", list(rows[0]), [list(row.values()) for row in rows])
    for name, (columns, *lines) in {
        "differences": differences_table(summary),
        "budgets": budget_table(summary),
    }.items():
        if lines:
            logger.log_table(name, columns, lines)
    logger.log_table("episodes", [*EPISODE_COLUMNS, "video"], _episodes(summary, episodes, output))
    for title, file in plots.items():
        logger.log_file(f"plots/{title}", output / file)
    for name, path in videos.items():
        logger.log_file(name, output / path)
    for file in FILES:
        logger.log_file(file, output / file)


def _episodes(summary: Mapping[str, Any], episodes: Sequence[Row], output: Path) -> list[list[Any]]:
    """Return a table row for each episode: its fields of episodes.csv, and its video if it was filmed."""
    videos = {
        (condition["label"], video["seed"]): output / video["path"]
        for condition in summary["conditions"]
        for video in condition["videos"]
    }
    labels = {condition["label"] for condition in summary["conditions"]}
    seeds = range(summary["seed"], summary["seed"] + summary["episodes"])
    return [
        [*(_value(name, row[name]) for name in EPISODE_COLUMNS), videos.get((row["condition"], int(row["seed"])))]
        for row in episodes
        if row["condition"] in labels and int(row["seed"]) in seeds
    ]


def _value(column: str, text: str) -> Any:
    """Convert a field of episodes.csv to text or a number; None if it is empty."""
    if column in TEXTS or not text:
        return text or None
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _figures(condition: Mapping[str, Any]) -> dict[str, Any]:
    """Return all figures of a condition under plain names."""
    figures: dict[str, Any] = {name: condition[name] for name in CONDITION}
    for name in INTERVALS:
        value = condition[name] or {"estimate": None, "low": None, "high": None}
        figures |= {name: value["estimate"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
    times = condition["chunk_seconds"] or dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
    figures |= {f"chunk_seconds_{name}": value for name, value in times.items()}
    figures |= {name: condition[name] for name in COSTS}
    return figures | {name: condition["timing"][name] for name in TIMING}
