"""Text for the other side: one line, of bounded length, without control characters or our directories."""

import re

MOST_CHARACTERS = 500
CLOSE_BYTES = 123  # of a reason in a close frame (RFC 6455)
_DIRECTORIES = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s'\":,;()/\\]+[/\\])+")


def one_line(text: str) -> str:
    """Return a text as one printable line."""
    words = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MOST_CHARACTERS]).split()
    line = " ".join(words)
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..."


def last_line(text: str) -> str:
    """Return the last line that is not empty. Other servers send tracebacks, whose last line is the error."""
    return one_line(text.strip().rpartition("\n")[2])


def close_reason(text: str) -> str:
    """Return as much of a text as a close frame holds."""
    return text.encode()[:CLOSE_BYTES].decode(errors="ignore")


def without_places(error: BaseException) -> str:
    """Return an error's message without directories of this machine."""
    return one_line(_DIRECTORIES.sub("", str(error)))
