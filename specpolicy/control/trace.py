"""Latency traces: recorded seconds of single inference calls, for the `delay` clock to replay."""

import csv
import hashlib
from pathlib import Path

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import one_line


def read_trace(path: str | Path, sampler: str | None = None) -> np.ndarray:
    """Return the seconds of the calls in a CSV file, (M,), in their order.

    Args:
        path: a file with a column `seconds`, such as the `chunks.csv` of `specpolicy evaluate`.
        sampler: keep the rows with this entry in the column `sampler`; needed if the file holds several.

    Raises:
        SpecpolicyError: no such column, sampler or row; several samplers and none chosen; a time that is not a number.
    """
    seconds = _column(path, _rows(path, sampler), "seconds")
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise SpecpolicyError(f"{path}: every time in the column 'seconds' must be finite and not negative")
    return seconds


def read_counts(path: str | Path, sampler: str | None = None) -> dict[str, np.ndarray]:
    """Return `calls` and `rows` of the same calls, (M,) each, as far as the file has these columns. Raises as
    `read_trace` does."""
    rows = _rows(path, sampler)
    return {name: _column(path, rows, name) for name in ("calls", "rows") if name in rows[0]}


def trace_digest(path: str | Path) -> str:
    """Return a digest of the file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def check_trace(path: str | Path, digest: str | None) -> None:
    """Raise unless the file is the one of that digest.

    Raises:
        SpecpolicyError: it is another one, or is not there.
    """
    if not Path(path).is_file() or trace_digest(path) != digest:
        raise SpecpolicyError(f"{path} is not the trace whose times were charged: put that one back")


def _rows(path: str | Path, sampler: str | None) -> list[dict[str, str]]:
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecpolicyError(f"{path} is no latency trace, a CSV file in UTF-8: {one_line(error)}") from None
    if not rows or "seconds" not in rows[0]:
        raise SpecpolicyError(f"{path} is no latency trace: it needs a column 'seconds' and at least one row")
    names = list(dict.fromkeys(row["sampler"] for row in rows)) if "sampler" in rows[0] else []
    if sampler is None and len(names) > 1:
        raise SpecpolicyError(f"{path} holds the calls of several samplers: choose one of {', '.join(names)}")
    if sampler is not None:
        if sampler not in names:
            raise SpecpolicyError(f"{path} has no calls of '{sampler}': it has {', '.join(names) or 'no samplers'}")
        rows = [row for row in rows if row["sampler"] == sampler]
    return rows


def _column(path: str | Path, rows: list[dict[str, str]], name: str) -> np.ndarray:
    try:
        return np.array([float(row[name]) for row in rows])
    except (TypeError, ValueError) as error:
        raise SpecpolicyError(f"{path}: an entry in the column '{name}' is no number: {error}") from error
