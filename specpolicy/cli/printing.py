"""Standard output that is lost: a full disk behind `>`, a reader such as `head` that has ended, a closed terminal.

Verbs keep their results in files, and what they print repeats them: they go on without it (`results_are_kept`). Where
the text is all that was asked for, as with --help, its loss is an error (`text_is_wanted`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from specpolicy.errors import SpecpolicyError


class Lossy:
    """A text stream that takes what is written to it also when the stream behind it no longer does."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, step: Callable[[], object]) -> None:
        if self.lost is not None:
            return
        try:
            step()
        except OSError as error:
            self.lost = error
            # The text is still in Python's buffer, and its own flush at exit must not fail.
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())

    @property
    def reason(self) -> str | None:
        """Why text was lost, in a line; None if none was, or if its reader has ended, who wanted no more."""
        if self.lost is None or isinstance(self.lost, BrokenPipeError):
            return None
        return f"standard output cannot be written: {self.lost.strerror or self.lost}"


@contextlib.contextmanager
def results_are_kept(verb: str) -> Iterator[None]:
    """Let a verb's run go on and end as it would if standard output is lost; say so on stderr."""
    with _lossy() as printed:
        yield
    if printed is not None and printed.reason is not None:
        with contextlib.suppress(OSError):  # a lost terminal takes both
            print(f"specpolicy {verb}: {printed.reason}; its files are complete", file=sys.stderr, flush=True)


@contextlib.contextmanager
def text_is_wanted() -> Iterator[None]:
    """Do the same for what is only printed, and refuse at the end if it was lost.

    Raises:
        SpecpolicyError: text was lost for another reason than that its reader has ended.
    """
    with _lossy() as printed:
        yield
    if printed is not None and printed.reason is not None:
        raise SpecpolicyError(f"{printed.reason}: send it elsewhere")


@contextlib.contextmanager
def _lossy() -> Iterator[Lossy | None]:
    before: Any = sys.stdout
    if before is None:  # it was closed before Python began
        yield None
        return
    # Within one another, each notes what is lost in its own block.
    printed = Lossy(before.stream if isinstance(before, Lossy) else before)
    sys.stdout = cast(TextIO, printed)
    try:
        yield printed
    finally:
        printed.flush()
        sys.stdout = before
