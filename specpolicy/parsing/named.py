"""Makes an object from a name and options, such as a sampler: each kind is a dataclass of its options."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError


def make_named(what: str, kinds: Mapping[str, type], name: str, options: Mapping[str, Any]) -> Any:
    """Make one of `kinds`. A number at the end of its name is the option `steps`.

    Raises:
        SpecpolicyError: no such kind or option, or a value that the option cannot have.
    """
    if not isinstance(name, str):
        raise SpecpolicyError(f"{what}={name!r}: give a name, one of {', '.join(kinds)}")
    name, steps = split_steps(kinds, name)
    if steps is not None:
        options = {"steps": steps, **options}
    if name not in kinds:
        raise SpecpolicyError(f"unknown {what} '{name}'{_hint(name, kinds)}")
    kind = kinds[name]
    known = [field.name for field in dataclasses.fields(kind) if field.name != "name"]
    for option in options:
        if option not in known:
            raise SpecpolicyError(f"{what} '{name}' has no option '{option}'{_hint(option, known)}")
    return kind(**options)


def split_steps(kinds: Collection[str], name: str) -> tuple[str, int | None]:
    """Split "recycled-16" into ("recycled", 16), and "recycled" into ("recycled", None)."""
    base, _, number = name.rpartition("-")
    return (base, int(number)) if base in kinds and number.isdecimal() else (name, None)


def _hint(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f": did you mean '{close[0]}'?" if close else f": use one of {', '.join(known) or '(none)'}"
