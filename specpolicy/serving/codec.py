"""Messages as bytes: msgpack, with numpy arrays as maps of `__ndarray__`, `data`, `dtype` and `shape`.

This is the encoding of openpi (openpi_client.msgpack_numpy). It has no pickle in it: there are no arrays of objects or
records. An incoming message is measured before it is decoded and checked before it becomes an array, so it cannot
unfold into much more memory than its own size.
"""

import math
import re
from typing import Any

import msgpack
import numpy as np

from specpolicy.serving.scan import MOST_OBJECTS, Limits, ProtocolError, check_size

__all__ = ["MOST_OBJECTS", "Limits", "ProtocolError", "pack", "unpack"]

# Booleans, integers, floats, bytes, text; not objects, records, dates or complex numbers.
NUMBERS, TEXTS = "biuf", "SU"
MOST_DIMENSIONS = 32
LAST_CHARACTER = 0x10FFFF  # of Unicode
DTYPE = re.compile(
    r"[<>|=]?(\?|b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6})|bool|u?int(8|16|32|64)|float(16|32|64)", re.ASCII
)
ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
FIELDS = {ARRAY: {ARRAY, b"data", b"dtype", b"shape"}, SCALAR: {SCALAR, b"data", b"dtype"}}


def pack(message: Any) -> bytes:
    """Return the bytes of a message: maps, lists, text, numbers, None, and numpy arrays and scalars."""
    try:
        return msgpack.packb(message, default=_encode)
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(f"this cannot be sent: {error}") from None


def unpack(data: bytes, limits: Limits | None = None) -> Any:
    """Return the message in some bytes. Arrays are new and writable. `limits` bounds its contents.

    Raises:
        ProtocolError: bytes that are not such a message, or one beyond the limits.
    """
    limits = limits or Limits()
    check_size(data, limits)
    try:
        return msgpack.unpackb(
            data,
            object_pairs_hook=_decode,
            strict_map_key=True,
            max_str_len=limits.text,
            max_array_len=limits.parts,
            max_map_len=limits.parts,
            max_ext_len=0,
        )
    except ProtocolError:
        raise
    # Besides its own errors, msgpack raises ValueError, TypeError, RecursionError and UnicodeDecodeError
    except Exception as error:
        raise ProtocolError(f"not a msgpack message ({type(error).__name__}: {str(error)[:100]})") from None


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        if not _travels(value.dtype):
            raise ProtocolError(f"an array of dtype {value.dtype} cannot be sent: use numbers, booleans or text")
        if isinstance(value, np.generic):
            return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
        return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise ProtocolError(f"a {type(value).__name__} cannot be sent: use arrays, numbers, text, lists and maps")


def _travels(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype may be sent: they have the same bytes on every machine."""
    return dtype.kind in TEXTS or (dtype.kind in NUMBERS and dtype.itemsize <= 8)


def _decode(pairs: list[tuple[Any, Any]]) -> Any:
    """Return a map, or the array or scalar that it encodes."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ProtocolError("a map has the same key twice")
    for mark in (ARRAY, SCALAR):
        if mark in fields:
            if fields.keys() != FIELDS[mark] or fields[mark] is not True:
                wanted = ", ".join(sorted(name.decode() for name in FIELDS[mark]))
                raise ProtocolError(f"a map with `{mark.decode()}` has the fields {wanted}, and no others")
            return _array(fields) if mark == ARRAY else _scalar(fields)
    if not all(isinstance(key, str) for key in fields):
        raise ProtocolError("the keys of a map are text")
    return fields


def _array(fields: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(fields), fields[b"data"], fields[b"shape"]
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise ProtocolError("an array needs `data` of bytes and `shape`, a list")
    if len(shape) > MOST_DIMENSIONS:
        raise ProtocolError(f"an array of {len(shape)} dimensions")
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ProtocolError(f"an array of shape {str(shape)[:60]}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ProtocolError(f"an array of shape {shape} and dtype {dtype} cannot have {len(data)} bytes")
    array = np.frombuffer(data, dtype)
    if dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise ProtocolError("an array of booleans has bytes that are neither 0 nor 1")
    if dtype.kind == "U" and (array.view(f"{dtype.byteorder}u4") > LAST_CHARACTER).any():
        raise ProtocolError("an array of text has characters that do not exist")
    return array.reshape(shape).copy()


def _scalar(fields: dict[Any, Any]) -> np.generic:
    dtype, data = _dtype(fields), fields[b"data"]
    kinds: dict[str, type | tuple[type, ...]] = {"b": bool, "i": int, "u": int, "f": (float, int), "S": bytes, "U": str}
    fits = isinstance(data, kinds[dtype.kind]) and isinstance(data, bool) == (dtype.kind == "b")
    if fits and dtype.kind in "iu":
        fits = np.iinfo(dtype).min <= data <= np.iinfo(dtype).max
    if not fits:
        raise ProtocolError(f"a scalar of dtype {dtype} cannot be {_shown(data)}")
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused where it matters
        return dtype.type(data)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def _dtype(fields: dict[Any, Any]) -> np.dtype:
    name = fields[b"dtype"]
    # Parse dtypes with our own list: numpy also accepts records, dates, sizes that wrap around below zero and more.
    if not isinstance(name, str) or not DTYPE.fullmatch(name):
        shown = name[:40] if isinstance(name, str) else type(name).__name__
        raise ProtocolError(f"dtype {shown!r} is refused: use those of booleans, integers, floats, bytes or text")
    return np.dtype(name)
