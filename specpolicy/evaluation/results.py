"""Results of an evaluation on disk: `episodes.csv` and `chunks.csv`, append-only and safe against kills."""

import csv
import io
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from specpolicy.control.timing import TimingLog, longest_run, mean
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.episode import Episode
from specpolicy.files import write_text, writing

# fmt: off
EPISODE_COLUMNS = (
    "task", "condition", "sampler", "clock", "delay", "factor", "execute_steps", "stitching", "seed",
    "success", "return", "length", "seconds", "max_coverage", "chunks", "calls", "rows",
    "chunk_seconds_mean", "chunk_seconds_p50", "chunk_seconds_p95", "chunk_seconds_max",
    "network_share", "encode_share", "late_chunks", "longest_run_of_late_chunks", "expired_chunks", "starved_steps",
    "observation_age_mean", "observation_age_max", "switches", "switch_jump_mean", "inner_jump_mean",
)
# fmt: on
CHUNK_COLUMNS = (
    "condition",
    "sampler",
    "seed",
    "chunk",
    "step",
    "used_at",
    "seconds",
    "network_seconds",
    "encode_seconds",
    "calls",
    "rows",
)

Row = dict[str, str]


class Table:
    """A CSV file in memory and on disk. Appended rows are on disk when `append` returns.

    A last line that a kill has cut short is dropped when the file is opened again.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, tuple(columns)
        self.rows, whole = read_table(path, columns)
        if not whole:
            self._rewrite()

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows. A kill meanwhile leaves the first few of them and a torn line."""
        added = [{column: _text(row[column]) for column in self.columns} for row in rows]
        self.rows += added
        with writing(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines(self.columns, added))
            file.flush()
            os.fsync(file.fileno())

    def keep(self, rows: list[Row]) -> None:
        """Keep only these rows."""
        if len(rows) < len(self.rows):
            self.rows = rows
            self._rewrite()

    def _rewrite(self) -> None:
        write_table(self.path, self.columns, self.rows)


def read_table(path: Path, columns: Sequence[str]) -> tuple[list[Row], bool]:
    """Return the complete rows of a CSV file, and whether the file is there and holds nothing else.

    Raises:
        SpecpolicyError: it has other columns.
    """
    content = path.read_bytes() if path.exists() else b""
    try:
        whole = content[: content.rfind(b"\n") + 1].decode()  # a kill may have cut a letter of several bytes
    except UnicodeDecodeError:
        raise SpecpolicyError(f"{path} is damaged: choose another output, or overwrite=true") from None
    lines = list(csv.reader(io.StringIO(whole)))
    if lines and tuple(lines[0]) != tuple(columns):
        raise SpecpolicyError(f"{path} has other columns than this version writes: choose another output")
    rows = [dict(zip(columns, line, strict=True)) for line in lines[1:] if len(line) == len(columns)]
    return rows, bool(lines) and len(whole.encode()) == len(content) and len(rows) == len(lines) - 1


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a CSV file, atomically."""
    write_text(path, ",".join(columns) + "\n" + _lines(columns, rows))


class Results:
    """Both tables of an output directory. An episode is done when its row is in `episodes.csv`."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.episodes = Table(directory / "episodes.csv", EPISODE_COLUMNS)
        self.chunks = Table(directory / "chunks.csv", CHUNK_COLUMNS)
        episodes, chunks = whole_episodes(self.episodes.rows, self.chunks.rows)
        self.chunks.keep(chunks)
        self.episodes.keep(episodes)

    @property
    def done(self) -> set[tuple[str, int]]:
        """Return (condition label, seed) of all finished episodes."""
        return {(row["condition"], int(row["seed"])) for row in self.episodes.rows}

    def add(self, task: str, condition: Condition, episode: Episode, execute_steps: int) -> None:
        """Record a finished episode."""
        steps, used_at = chunk_steps(episode.timing)
        self.chunks.append(
            {
                "condition": condition.label,
                "sampler": condition.sampler,
                "seed": episode.seed,
                "chunk": number,
                "step": steps.get(number),
                "used_at": used_at.get(number),
                "seconds": chunk.seconds,
                "network_seconds": chunk.network_seconds,
                "encode_seconds": chunk.encode_seconds,
                "calls": chunk.calls,
                "rows": chunk.rows,
            }
            for number, chunk in enumerate(episode.chunks)
        )
        self.episodes.append([episode_row(task, condition, episode, execute_steps)])


def whole_episodes(episodes: Iterable[Row], chunks: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of complete episodes, each once, and the rows of their chunks.

    Chunks are written before their episode. Chunks of an unfinished episode are dropped, and the episode is played
    again. If two runs have written the same episode, the first is kept, with the chunks that match it in number and
    calls; an episode without matching chunks is played again.
    """
    written: dict[tuple[str, str], list[list[Row]]] = {}
    for row in chunks:
        takes = written.setdefault((row["condition"], row["seed"]), [])
        if not takes or int(row["chunk"]) != len(takes[-1]):
            takes.append([])
        takes[-1].append(row)
    kept: dict[tuple[str, str], list[Row]] = {}
    rows = []
    for row in episodes:
        key, wanted = (row["condition"], row["seed"]), (int(row["chunks"]), float(row["calls"]))
        takes = written.get(key, []) or [[]]
        own = [take for take in takes if (len(take), sum(float(one["calls"]) for one in take)) == wanted]
        if key not in kept and own:
            kept[key] = own[0]
            rows.append(row)
    return rows, [row for take in kept.values() for row in take]


def episode_row(task: str, condition: Condition, episode: Episode, execute_steps: int) -> dict[str, object]:
    """Return the episode's row of `episodes.csv`."""
    seconds = np.array([chunk.seconds for chunk in episode.chunks] or [0.0])
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    network = sum(chunk.network_seconds for chunk in episode.chunks)
    encoding = sum(chunk.encode_seconds for chunk in episode.chunks)
    return {
        "task": task,
        "condition": condition.label,
        "sampler": condition.sampler,
        "clock": condition.clock,
        "delay": condition.delay,
        "factor": condition.factor,
        "execute_steps": execute_steps,
        "stitching": condition.stitching,
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
        "encode_share": encoding / seconds.sum() if seconds.sum() > 0 else 0.0,
        **_timing(episode.timing),
    }


def chunk_steps(timing: TimingLog | None) -> tuple[dict[int, int], dict[int, int]]:
    """Return, by chunk number, the step of its observation and the first step that executed one of its actions."""
    if timing is None:
        return {}, {}
    used_at: dict[int, int] = {}
    for tick in timing.ticks:
        if tick.chunk is not None:
            used_at.setdefault(tick.chunk, tick.step)
    return {number: chunk.step for number, chunk in enumerate(timing.chunks)}, used_at


def _timing(timing: TimingLog | None) -> dict[str, object]:
    """Summarise the timing of chunks and control steps.

    A jump is the length of a change of the action. At a switch of chunks the change may be from a held action.
    """
    log = timing or TimingLog(hz=1.0)
    ages = [tick.age for tick in log.ticks if tick.age is not None]
    switches = log.boundary_jumps
    inner = [
        tick.jump
        for before, tick in itertools.pairwise(log.ticks)
        if tick.jump is not None and before.chunk == tick.chunk is not None
    ]
    return {
        "late_chunks": log.misses,
        "longest_run_of_late_chunks": longest_run([chunk.missed for chunk in log.chunks]),
        "expired_chunks": sum(chunk.expired for chunk in log.chunks),
        "starved_steps": log.starved_ticks,
        "observation_age_mean": mean(ages),
        "observation_age_max": max(ages, default=None),
        "switches": len(switches),
        "switch_jump_mean": mean(switches),
        "inner_jump_mean": mean(inner),
    }


def _lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _text(value: object) -> str:
    """Write numbers so that they read back as the same number, and None as an empty field."""
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
