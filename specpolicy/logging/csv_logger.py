"""Metrics in a CSV file that survives kills, resumed runs and metrics that appear late."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.logging.metrics import MetricLogger


class CsvLogger(MetricLogger):
    """One row per `log` call: the column `step`, then one column per metric, empty where no value was given.

    Each row is appended and flushed at once. A new metric adds a column at the end and rewrites the file. A line that a
    kill has cut short is dropped when the file is opened again.

    Args:
        path: the file; its directory is created.
        resume_step: keep only rows up to and including this step; None keeps all.
    """

    def __init__(self, path: Path | str, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.columns = ["step"]
        if self.path.exists():
            self._recover(resume_step)
        else:
            self._rewrite([])
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        new = [key for key in metrics if key not in self.columns]
        if new:
            self._file.close()
            rows = self._read()
            self.columns += new
            self._rewrite(rows)
            self._file = self.path.open("a", encoding="utf-8", newline="")
        row = {key: _number(value) for key, value in metrics.items()}
        self._file.write(self._lines([{**row, "step": str(int(step))}]))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _recover(self, resume_step: int | None) -> None:
        """Read the columns; drop a torn last line and the rows after `resume_step`."""
        try:
            text = self.path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            header = next(csv.reader(io.StringIO(whole)), ["step"])
            rows = list(csv.DictReader(io.StringIO(whole)))
            steps = [int(row["step"]) for row in rows] if header[0] == "step" else []
            if any(None in row for row in rows):
                raise ValueError("a row has more values than there are columns")
        except (ValueError, TypeError, IndexError, csv.Error) as error:
            raise SpecpolicyError(f"{self.path} is damaged ({error}): mend it or move it away") from None
        if header[0] != "step":
            raise SpecpolicyError(f"{self.path} is no metrics file (its first column is not step); move it away")
        self.columns = header
        kept = [row for row, step in zip(rows, steps, strict=True) if resume_step is None or step <= resume_step]
        if len(kept) < len(rows) or whole != text or not whole:
            self._rewrite(kept)

    def _read(self) -> list[dict[str, str]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        header = {column: column for column in self.columns}
        write_text(self.path, self._lines([header, *rows]))

    def _lines(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue()


def last_values(path: Path | str) -> dict[str, float]:
    """Return the last value of each metric in a file of the logger, whatever its step; {} if there is no file."""
    if not Path(path).exists():
        return {}
    with Path(path).open(encoding="utf-8", newline="") as file:
        return {name: float(text) for row in csv.DictReader(file) for name, text in row.items() if name and text}


def _number(value: float) -> str:
    """Return the shortest text that reads back as the same number; 0-d arrays and tensors are accepted too."""
    if isinstance(value, bool | int):
        return str(int(value))
    return repr(float(value))
