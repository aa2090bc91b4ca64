"""Measures a message before anything is allocated for it.

A decoder allocates what a message announces: five bytes announce four thousand million entries, a byte becomes a list
of 56 bytes, a thousand lists are nested. So the bytes are scanned first, by msgpack's format alone. A message with too
many parts, too much depth or too long a text is refused while it is still bytes.
"""

from dataclasses import dataclass

from specpolicy.errors import SpecpolicyError

# Numbers travel as arrays; lists and maps are for structure. A part takes up to a hundred bytes of memory.
MOST_OBJECTS = 200_000


class ProtocolError(SpecpolicyError):
    """A message that violates the protocol."""


@dataclass(frozen=True)
class Limits:
    """Limits of one message.

    Attributes:
        parts: numbers, texts, arrays, lists and maps in it, with the keys of the maps.
        depth: nested lists and maps.
        text: bytes of its longest text.
    """

    parts: int = MOST_OBJECTS
    depth: int = 16
    text: int = 2**16


_NUMBER, _TEXT, _BYTES, _LIST, _MAP, _EXTENSION, _UNKNOWN = range(7)


def _kind(first: int) -> tuple[int, int, int]:
    """Return, by the first byte of a part: its kind, the number of bytes of its size field, and its size if it has
    none."""
    if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        return _NUMBER, 0, 0
    if first < 0x90:
        return _MAP, 0, first & 15
    if first < 0xA0:
        return _LIST, 0, first & 15
    if first < 0xC0:
        return _TEXT, 0, first & 31
    told = {
        0xC4: (_BYTES, 1), 0xC5: (_BYTES, 2), 0xC6: (_BYTES, 4), 0xD9: (_TEXT, 1), 0xDA: (_TEXT, 2), 0xDB: (_TEXT, 4),
        0xDC: (_LIST, 2), 0xDD: (_LIST, 4), 0xDE: (_MAP, 2), 0xDF: (_MAP, 4),
    }  # fmt: skip
    if first in told:
        return *told[first], 0
    numbers = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    if first in numbers:
        return _NUMBER, 0, numbers[first]
    return (_UNKNOWN if first == 0xC1 else _EXTENSION), 0, 0


_KINDS = tuple(_kind(first) for first in range(256))


def check_size(data: bytes, limits: Limits) -> None:
    """Scan a message of msgpack without decoding it.

    The cost is that of the allowed parts, however long the message is.

    Raises:
        ProtocolError: it is cut off or too long, holds types outside the protocol, or exceeds the limits.
    """
    position, end, parts = 0, len(data), 1
    missing, outside = 1, list[int]()  # entries still to come: of the innermost list or map, and of those around it
    while missing or outside:
        if not missing:
            missing = outside.pop()
            continue
        missing -= 1
        if position >= end:
            raise ProtocolError("not a msgpack message: it ends too early")
        kind, width, size = _KINDS[data[position]]
        position += 1
        if width:
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        if kind <= _BYTES:
            if kind == _TEXT and size > limits.text:
                raise ProtocolError(f"the message has a text of {size} bytes: {limits.text} are taken")
            position += size
            continue
        if kind == _EXTENSION:
            raise ProtocolError("msgpack's extension types are refused")
        if kind == _UNKNOWN:
            raise ProtocolError("not a msgpack message: it holds the byte 0xc1")
        entries = 2 * size if kind == _MAP else size
        parts += entries
        if parts > limits.parts:
            raise ProtocolError(f"the message has more than {limits.parts} parts: send numbers as arrays")
        outside.append(missing)
        missing = entries
        if len(outside) > limits.depth:
            raise ProtocolError(f"the message has more than {limits.depth} lists and maps in each other")
    if position != end:
        reason = "ends too early" if position > end else "goes on behind its end"
        raise ProtocolError(f"not a msgpack message: it {reason}")
