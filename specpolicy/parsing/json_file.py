"""`read_json`: reads a stranger's JSON file without trusting its size, its depth or its type."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing.words import shown

MIB = 2**20
MOST_BYTES = 8 * MIB  # parsed, that is up to some 200 MiB
MOST_DEPTH = 32
DIGITS = 19  # of 2**63


def read_json(path: str | Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file.

    Refused: anything but a regular file (a link to one will do), more than `most_bytes`, text that is not UTF-8, a top
    level that is not an object, nesting deeper than 32, NaN and infinities, whole numbers beyond 64 bits, duplicate
    keys.

    Raises:
        SpecpolicyError: one of these, or the system cannot read the file.
    """
    return parse_json(read_bytes(path, most_bytes), path)


def parse_json(data: bytes | str, path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON text; `path` is its place, for messages. See `read_json` for what is refused.

    Raises:
        SpecpolicyError: see `read_json`.
    """
    if len(data) > MOST_BYTES:
        raise SpecpolicyError(f"{path} is larger than {MOST_BYTES / MIB:g} MiB")
    try:
        found = json.loads(
            data.decode("utf-8") if isinstance(data, bytes) else data,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError:
        raise SpecpolicyError(f"{path} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise SpecpolicyError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise SpecpolicyError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise SpecpolicyError(f"{path} holds {shown(found)} in place of an object")
    _check(found, path)
    return found


def read_bytes(path: str | Path, most_bytes: int) -> bytes:
    """Return the content of a regular file that is not larger than `most_bytes`.

    Raises:
        SpecpolicyError: not such a file, or the system does not allow reading it.
    """
    check_regular(path, most_bytes)
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise SpecpolicyError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > most_bytes:
        raise SpecpolicyError(f"{path} is larger than {most_bytes / MIB:g} MiB")
    return data


def check_regular(path: str | Path, most_bytes: float = math.inf) -> int:
    """Return the size in bytes of a regular file, or of the target of a link to one.

    A pipe would wait for a writer, and /dev/zero never ends, so neither is opened.

    Raises:
        SpecpolicyError: nothing there, not a regular file, or a larger one.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise SpecpolicyError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # the latter for a null byte in the name
        raise SpecpolicyError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise SpecpolicyError(f"{path} is {what}: a file must be there")
    if status.st_size > most_bytes:
        raise SpecpolicyError(f"{path} is larger than {most_bytes / MIB:g} MiB")
    return status.st_size


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return made


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number that can be used")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS:
        raise ValueError(f"the whole number {shown(text)} is too large")
    return int(text)


def _check(value: Any, path: str | Path) -> None:
    """Raise for nesting that is too deep, and for text that cannot be written again (half of a surrogate pair)."""
    level = [value]
    for _ in range(MOST_DEPTH):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one, path)
            elif isinstance(one, dict):
                deeper += [*one, *one.values()]
            elif isinstance(one, list):
                deeper += one
        if not deeper:
            return
        level = deeper
    raise SpecpolicyError(f"{path} is nested deeper than {MOST_DEPTH} levels")


def _check_text(text: str, path: str | Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SpecpolicyError(f"{path} holds the text {shown(text)}, which is no Unicode") from None
