"""What is said to the other side: one line, of bounded length, without control characters or places on our disk."""

import re

MOST_CHARACTERS = 500
_DIRECTORIES = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s'\":,;()/\\]+[/\\])+")


def one_line(text: str) -> str:
    """A text as one line that may be printed."""
    words = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MOST_CHARACTERS]).split()
    line = " ".join(words)
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..."


def last_line(text: str) -> str:
    """The last line of a text that is not empty: servers of others send tracebacks, which end with what happened."""
    return one_line(text.strip().rpartition("\n")[2])


def without_places(error: BaseException) -> str:
    """What an error says, without the directories of the machine that it happened on."""
    return one_line(_DIRECTORIES.sub("", str(error)))
