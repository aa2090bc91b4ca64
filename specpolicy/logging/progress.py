"""A progress bar for long work: live in a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO


class Progress(Protocol):
    """The handle that `progress_bar` gives to its block. Only the main process calls it; workers send results."""

    def advance(self, amount: int = 1, **figures: float | str) -> None:
        """Count `amount` more pieces of work as done; show the figures beside the bar."""


@contextmanager
def progress_bar(total: int, description: str, done: int = 0, stream: TextIO | None = None) -> Iterator[Progress]:
    """Show how much of `total` is done, on stderr by default.

    Args:
        total: pieces of work in all.
        description: a few words, such as "collect lift".
        done: pieces that an earlier, interrupted run has finished.
        stream: where to write. A terminal gets a live bar. Others get a line every tenth of the work or every 30
            seconds, whichever comes later, and one at the end.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        with _live_bar(total, description, done, stream) as bar:
            yield bar
    else:
        lines = _Lines(total, description, done, stream)
        yield lines
        lines.finish()


@contextmanager
def _live_bar(total: int, description: str, done: int, stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with RichProgress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(description, total=total, completed=done, figures="")

        class Live:
            def advance(self, amount: int = 1, **figures: float | str) -> None:
                shown = {"figures": _format(figures)} if figures else {}
                bar.update(task, advance=amount, **shown)  # type: ignore[arg-type]

        yield Live()


class _Lines:
    """Plain lines, few enough for a log file."""

    seconds_between = 30.0

    def __init__(self, total: int, description: str, done: int, stream: TextIO) -> None:
        self.total, self.description, self.done, self.stream = total, description, done, stream
        self.start = self.last_time = time.monotonic()
        self.done_before = done
        self.printed, self.last_done, self.figures = done, done, ""
        if done:
            self._print()

    def advance(self, amount: int = 1, **figures: float | str) -> None:
        self.done += amount
        self.figures = _format(figures) or self.figures
        tenth = self.done - self.last_done >= max(1, self.total // 10)
        if tenth and time.monotonic() - self.last_time >= self.seconds_between:
            self._print()

    def finish(self) -> None:
        if self.printed != self.done:
            self._print()

    def _print(self) -> None:
        self.last_time, self.last_done, self.printed = time.monotonic(), self.done, self.done
        elapsed = self.last_time - self.start
        line = f"{self.description}: {self.done}/{self.total} in {elapsed:.0f} s"
        here = self.done - self.done_before  # work of an earlier run does not count for the pace
        if here and self.done < self.total:
            line += f", about {elapsed * (self.total - self.done) / here:.0f} s left"
        print(f"{line}  {self.figures}".rstrip(), file=self.stream, flush=True)


def _format(figures: dict[str, float | str]) -> str:
    parts = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in figures.values())
    return "  ".join(f"{key.replace('_', ' ')} {part}" for key, part in zip(figures, parts, strict=True))
