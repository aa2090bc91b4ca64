"""Makes the metric logger that a configuration describes: one, several or none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specpolicy.artifacts import Artifact
from specpolicy.errors import SpecpolicyError
from specpolicy.logging.csv_logger import CsvLogger
from specpolicy.logging.metrics import MetricLogger, Score


class NoLogger(MetricLogger):
    """Records nothing."""


class SeveralLoggers(MetricLogger):
    """Passes everything on to several loggers."""

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

    def use_policy(self, artifact: Artifact) -> None:
        for logger in self.loggers:
            logger.use_policy(artifact)

    def log_policy(
        self,
        name: str,
        files: Mapping[str, Path],
        metadata: Mapping[str, Any],
        score: Score | None = None,
        alias: str | None = None,
    ) -> str | None:
        found = [logger.log_policy(name, files, metadata, score, alias) for logger in self.loggers]
        return next((reference for reference in found if reference is not None), None)

    def close(self) -> None:
        for logger in self.loggers:
            logger.close()


def check_logger(config: Mapping[str, Any]) -> None:
    """Refuse what `make_logger` would, as far as it can be seen before anything is written.

    Raises:
        SpecpolicyError: the logger or its mode is unknown.
        ModuleNotFoundError: its package is not installed.
    """
    kind = config.get("name")
    if kind not in ("csv", "wandb", "none"):
        raise SpecpolicyError(f"unknown logger '{kind}'; known: csv, none, wandb")
    if kind == "wandb":
        from specpolicy.logging.wandb_logger import chosen_mode

        chosen_mode(config.get("mode", "online"))
        importlib.import_module("wandb")


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
        resume_step: step of the checkpoint that the run continues from. Later rows are dropped, since they will be
            computed again. None keeps all rows.

    Raises:
        SpecpolicyError: the logger's name or an option is unknown.
    """
    check_logger(config)
    options = dict(config)
    kind = options.pop("name", None)
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
