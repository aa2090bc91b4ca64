"""The interface of every metric logger, and the one place that chooses among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specpolicy.artifacts import Artifact
from specpolicy.errors import SpecpolicyError


@dataclass(frozen=True)
class Score:
    """How good a policy is, beside others.

    Attributes:
        measure: what was measured, such as "validation/loss".
        given: what it was measured on; scores of another measure, or given another, are not compared.
        value: finite.
        higher: whether a higher value is the better one.
    """

    measure: str
    given: str
    value: float
    higher: bool = False

    def beats(self, other: Mapping[str, Any]) -> bool | None:
        """Whether it is better than a score read back from metadata; None if the two are not to be compared."""
        if (other.get("measure"), other.get("given")) != (self.measure, self.given):
            return None
        value = float(other["value"])
        return self.value > value if self.higher else self.value < value


class MetricLogger:
    """Where numbers go while something runs. Every method may be ignored by a logger that cannot do it.

    A context manager: leaving the block closes the logger.
    """

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record scalar metrics of one step."""

    def log_file(self, name: str, path: Path | str, step: int | None = None) -> None:
        """Record a file: .png and .jpg as an image, .mp4 and .gif as a video, others as they are."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a small table; a cell that is a Path is the image or the video that lies there."""

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Record final values of the run."""

    def use_policy(self, artifact: Artifact) -> None:
        """Record that the run works with this policy."""

    def log_policy(
        self,
        name: str,
        files: Mapping[str, Path],
        metadata: Mapping[str, Any],
        score: Score | None = None,
        alias: str | None = None,
    ) -> str | None:
        """Record a policy that the run has made, as a new version of the artifact `name`.

        Args:
            name: of all versions.
            files: {name in the artifact: where the file lies}: those of a checkpoint directory.
            metadata: plain values to show beside it.
            score: by which the best version is known.
            alias: of the new version, besides `latest`, and `best` where its score is.

        Returns:
            What to write for a path to use it; None where it was not recorded, or its version is not known yet.
        """
        return None

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
