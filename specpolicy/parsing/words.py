"""Words of error messages: the nearest known name, and foreign values on one short line."""

import difflib
from collections.abc import Iterable

LONGEST = 60  # characters of a foreign value in a message
LINE = 300  # characters of a foreign message


def closest(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean 'right'?` for the nearest of `words`, or nothing if none is near."""
    parent = f"{word.rpartition('.')[0]}."
    names = sorted(
        words, key=lambda name: name.startswith(parent)
    )  # of two that are now the same, the last one is kept
    if not names or not names[-1].startswith(parent):
        parent = ""
    # Compare keys of one parent by their own names; with the shared prefix all of them would be near.
    own = {name.removeprefix(parent): name for name in names}
    found = difflib.get_close_matches(word.removeprefix(parent)[:LONGEST], list(own), n=1, cutoff=0.6)
    return f"; did you mean '{own[found[0]]}'?" if found else ""


def shown(value: object) -> str:
    """Return a foreign value for a message: on one line, printable, short."""
    if isinstance(value, list | tuple | dict | set):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    text = repr(value[: LONGEST + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def one_line(message: object, longest: int = LINE) -> str:
    """Return a message with foreign words in it: on one line, printable (no terminal commands), short."""
    text = " ".join(str(message)[: 2 * longest].split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= longest else f"{text[:longest]}..."
