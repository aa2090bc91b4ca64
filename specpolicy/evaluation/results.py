"""The results of an evaluation on disk: `episodes.csv` and `chunks.csv`, appended to and safe against kills."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.episode import Episode
from specpolicy.files import write_text

# fmt: off
EPISODE_COLUMNS = (
    "task", "sampler", "seed", "success", "return", "length", "seconds", "max_coverage", "chunks", "calls", "rows",
    "chunk_seconds_mean", "chunk_seconds_p50", "chunk_seconds_p95", "chunk_seconds_max", "network_share",
)
# fmt: on
CHUNK_COLUMNS = ("sampler", "seed", "chunk", "seconds", "network_seconds", "calls", "rows")

Row = dict[str, str]


class Table:
    """A CSV file in memory and on disk. Appended rows are on the disk when `append` returns.

    A last line that a kill has cut short is dropped when the file is opened again.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, tuple(columns)
        self.rows: list[Row] = []
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        lines = list(csv.reader(io.StringIO(whole)))
        if lines and tuple(lines[0]) != self.columns:
            raise SpecpolicyError(f"{path} has other columns than this version writes: choose another output")
        self.rows = [dict(zip(columns, line, strict=True)) for line in lines[1:] if len(line) == len(columns)]
        if not lines or whole != text or len(self.rows) < len(lines) - 1:
            self._rewrite()

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows, all of them or, if killed, the first few and a torn line."""
        added = [{column: _text(row[column]) for column in self.columns} for row in rows]
        self.rows += added
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._lines(added))
            file.flush()
            os.fsync(file.fileno())

    def keep(self, wanted: Callable[[Row], bool]) -> None:
        """Drop the other rows."""
        kept = [row for row in self.rows if wanted(row)]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._rewrite()

    def _rewrite(self) -> None:
        write_text(self.path, ",".join(self.columns) + "\n" + self._lines(self.rows))

    def _lines(self, rows: Iterable[Row]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


class Results:
    """Both tables of one output directory. An episode counts as done when its row is in `episodes.csv`."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.episodes = Table(directory / "episodes.csv", EPISODE_COLUMNS)
        self.chunks = Table(directory / "chunks.csv", CHUNK_COLUMNS)
        # Chunks are written first; those of an episode that was not finished are played again.
        done = self.done
        self.chunks.keep(lambda row: (row["sampler"], int(row["seed"])) in done)

    @property
    def done(self) -> set[tuple[str, int]]:
        """(sampler, seed) of the finished episodes."""
        return {(row["sampler"], int(row["seed"])) for row in self.episodes.rows}

    def add(self, task: str, label: str, episode: Episode) -> None:
        """Record a finished episode."""
        self.chunks.append(
            {
                "sampler": label,
                "seed": episode.seed,
                "chunk": number,
                "seconds": chunk.seconds,
                "network_seconds": chunk.network_seconds,
                "calls": chunk.calls,
                "rows": chunk.rows,
            }
            for number, chunk in enumerate(episode.chunks)
        )
        self.episodes.append([episode_row(task, label, episode)])


def episode_row(task: str, label: str, episode: Episode) -> dict[str, object]:
    """The row of `episodes.csv`."""
    seconds = np.array([chunk.seconds for chunk in episode.chunks] or [0.0])
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    network = sum(chunk.network_seconds for chunk in episode.chunks)
    return {
        "task": task,
        "sampler": label,
        "seed": episode.seed,
        "success": int(episode.success),
        "return": episode.total_reward,
        "length": episode.length,
        "seconds": episode.seconds,
        "max_coverage": episode.max_coverage,
        "chunks": len(episode.chunks),
        "calls": sum(chunk.calls for chunk in episode.chunks),
        "rows": sum(chunk.rows for chunk in episode.chunks),
        "chunk_seconds_mean": seconds.mean(),
        "chunk_seconds_p50": p50,
        "chunk_seconds_p95": p95,
        "chunk_seconds_max": seconds.max(),
        "network_share": network / seconds.sum() if seconds.sum() > 0 else 0.0,
    }


def _text(value: object) -> str:
    """Numbers so that they read back as the same number; None as an empty field."""
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
