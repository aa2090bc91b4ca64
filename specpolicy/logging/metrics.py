"""The interface of every metric logger, and the one place that chooses among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError


class MetricLogger:
    """Where numbers go while something runs. Every method may be ignored by a logger that cannot do it.

    A context manager: leaving the block closes the logger.
    """

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record scalar metrics of one step."""

    def log_file(self, name: str, path: Path | str, step: int | None = None) -> None:
        """Record a file: .png and .jpg as an image, .mp4 and .gif as a video, others as they are."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a small table."""

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Record final values of the run."""

    def close(self) -> None:
        """Flush and release everything."""

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class NoLogger(MetricLogger):
    """Records nothing."""


class SeveralLoggers(MetricLogger):
    """Passes everything to each of several loggers."""

    def __init__(self, loggers: Sequence[MetricLogger]) -> None:
        self.loggers = tuple(loggers)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log(metrics, step)

    def log_file(self, name: str, path: Path | str, step: int | None = None) -> None:
        for logger in self.loggers:
            logger.log_file(name, path, step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for logger in self.loggers:
            logger.log_table(name, columns, rows)

    def summary(self, metrics: Mapping[str, Any]) -> None:
        for logger in self.loggers:
            logger.summary(metrics)

    def close(self) -> None:
        for logger in self.loggers:
            logger.close()


def make_logger(
    config: Mapping[str, Any],
    directory: Path | str,
    run_config: Mapping[str, Any] | None = None,
    name: str | None = None,
    resume_step: int | None = None,
) -> MetricLogger:
    """Return the logger that a `logger` config describes.

    Args:
        config: `{"name": "csv" | "wandb" | "none", ...}`; the other keys are those of configs/logger.
        directory: output directory of the run; `metrics.csv` and W&B's files are written there.
        run_config: the run's resolved configuration, shown by W&B.
        name: the run's name in W&B.
        resume_step: the step of the checkpoint that the run continues from; later rows are dropped, since
            they will be computed again. None keeps every row.

    Raises:
        SpecpolicyError: an unknown logger name or option.
    """
    from specpolicy.logging.csv_logger import CsvLogger

    options = dict(config)
    kind = options.pop("name", None)
    if kind not in ("csv", "wandb", "none"):
        raise SpecpolicyError(f"unknown logger '{kind}'; known: csv, none, wandb")
    if kind == "none":
        return NoLogger()
    csv_logger = CsvLogger(Path(directory) / "metrics.csv", resume_step)
    if kind == "csv":
        return csv_logger
    from specpolicy.logging.wandb_logger import WandbLogger

    try:
        wandb_logger = WandbLogger(directory, run_config=run_config, run_name=name, **options)
    except TypeError as error:
        raise SpecpolicyError(f"logger wandb: {error}") from error
    return SeveralLoggers([csv_logger, wandb_logger])
