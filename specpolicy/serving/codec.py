"""Messages as bytes: msgpack, and numpy arrays as maps of `__ndarray__`, `data`, `dtype` and `shape`.

This is the encoding of openpi (openpi_client.msgpack_numpy), which has no pickle in it: arrays of objects and of
records do not exist here. What comes in is checked before it becomes an array, and a message cannot unfold into much
more memory than it took on the way.
"""

import math
from typing import Any

import msgpack
import numpy as np

from specpolicy.errors import SpecpolicyError

KINDS = "biufSU"  # booleans, integers, floats, bytes, text; not objects, records or complex numbers
# Numbers travel as arrays; lists and maps are for structure. An empty list of one byte becomes one of 56 bytes.
MOST_OBJECTS = 200_000


class ProtocolError(SpecpolicyError):
    """A message that is not what the protocol says."""


def pack(message: Any) -> bytes:
    """The bytes of a message: maps, lists, text, numbers, None, and numpy arrays and scalars."""
    try:
        return msgpack.packb(message, default=_encode)
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(f"this cannot be sent: {error}") from None


def unpack(data: bytes) -> Any:
    """The message in some bytes. Arrays are new and may be written to.

    Raises:
        ProtocolError: bytes that are no such message.
    """
    budget = _Budget()
    try:
        return msgpack.unpackb(
            data, object_hook=budget.decode, list_hook=budget.count, ext_hook=_refuse, max_array_len=MOST_OBJECTS
        )
    except ProtocolError:
        raise
    # msgpack has errors of its own and raises ValueError, TypeError, RecursionError and UnicodeDecodeError, too.
    except Exception as error:
        raise ProtocolError(f"not a msgpack message ({type(error).__name__}: {error})") from None


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in KINDS:
            raise ProtocolError(f"an array of dtype {value.dtype} cannot be sent: use numbers, booleans or text")
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise ProtocolError(f"a {type(value).__name__} cannot be sent: use arrays, numbers, text, lists and maps")


class _Budget:
    """Counts the objects of one message while they are made."""

    def __init__(self) -> None:
        self._left = MOST_OBJECTS

    def count(self, values: Any) -> Any:
        self._left -= 1 + len(values)
        if self._left < 0:
            raise ProtocolError(f"the message has more than {MOST_OBJECTS} parts: send numbers as arrays")
        return values

    def decode(self, fields: dict[Any, Any]) -> Any:
        self.count(fields)
        if b"__ndarray__" in fields:
            return _array(fields)
        if b"__npgeneric__" in fields:
            return _scalar(fields)
        return fields


def _array(fields: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(fields), fields.get(b"data"), fields.get(b"shape")
    if not isinstance(data, bytes) or not isinstance(shape, list | tuple):
        raise ProtocolError("an array needs `data` of bytes and `shape`, a list")
    if not all(isinstance(size, int) and size >= 0 for size in shape) or len(shape) > 32:
        raise ProtocolError(f"an array of shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ProtocolError(f"an array of shape {shape} and dtype {dtype} cannot have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _scalar(fields: dict[Any, Any]) -> np.generic:
    dtype = _dtype(fields)
    try:
        return dtype.type(fields.get(b"data"))
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(f"a scalar of dtype {dtype}: {error}") from None


def _dtype(fields: dict[Any, Any]) -> np.dtype:
    name = fields.get(b"dtype")
    try:
        if not isinstance(name, str) or len(name) > 16:
            raise TypeError
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        raise ProtocolError(f"unknown dtype {str(name)[:40]!r}") from None
    if dtype.kind not in KINDS or dtype.itemsize == 0:
        raise ProtocolError(f"an array of dtype {dtype} is refused")
    return dtype


def _refuse(code: int, data: bytes) -> Any:
    raise ProtocolError(f"msgpack's extension type {code} is refused")
