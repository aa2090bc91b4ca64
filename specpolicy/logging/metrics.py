"""The interface of all metric loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specpolicy.artifacts import Artifact


@dataclass(frozen=True)
class Score:
    """A policy's score, comparable with scores of the same measure.

    Attributes:
        measure: the measured quantity, such as "validation/loss".
        given: what it was measured on. Only scores with the same `measure` and `given` are compared.
        value: the score, finite.
        higher: whether higher values are better.
    """

    measure: str
    given: str
    value: float
    higher: bool = False

    def beats(self, other: Mapping[str, Any]) -> bool | None:
        """Whether this score is better than one read back from metadata; None if they cannot be compared."""
        if (other.get("measure"), other.get("given")) != (self.measure, self.given):
            return None
        value = float(other["value"])
        return self.value > value if self.higher else self.value < value


class MetricLogger:
    """Receives the numbers of a run. A logger may ignore any method that it does not support.

    Use it as a context manager: leaving the block closes the logger.
    """

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record scalar metrics of one step."""

    def log_file(self, name: str, path: Path | str, step: int | None = None) -> None:
        """Record a file: .png and .jpg as an image, .mp4 and .gif as a video, others as they are."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a small table; a cell that is a Path shows the image or video at this path."""

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Record final values of the run."""

    def use_policy(self, artifact: Artifact) -> None:
        """Record that the run uses this policy."""

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
            name: name that all versions share.
            files: {name in the artifact: path}, the files of a checkpoint directory.
            metadata: plain values to show beside it.
            score: decides which version is the best.
            alias: alias of the new version, besides `latest`, and `best` if its score is the best.

        Returns:
            The name to use in place of a path; None if the policy was not recorded or its version is not known yet.
        """
        return None

    def close(self) -> None:
        """Flush and release everything."""

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
