"""Arrays and numbers of numpy in a stranger's pickle: built from bytes, after a check of their kind, shape and size.

In numpy a pickle may declare its bytes to be pointers to objects. The stand-ins here hold numbers only.
"""

import math
from typing import Any, Literal

import numpy as np

from specpolicy.integrations.budget import Damaged, Refused
from specpolicy.parsing import shown

CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
MOST_DIMENSIONS = 16
MOST_NUMBERS = 2**48  # more than any file has
MOST_EMPTY = 4096  # product of the sides of an array without numbers: networks are built from such sides


class Dtype:
    """`numpy.dtype`: the kind of an array's numbers, and their byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False):
        if not isinstance(code, str) or code not in CODES:
            raise Refused(f"arrays of numpy type {shown(code)}")
        self._code, self._order = code, "="

    def set_state(self, state: Any) -> None:
        """Set the state (version, order, subarray, names, fields, size, alignment, flags): all but the order is
        empty."""
        plain = (3, None, None, None, -1, -1, 0)
        if not isinstance(state, tuple) or len(state) != 8 or (state[0], *state[2:]) != plain:
            raise Refused("arrays of structures or objects")
        if not isinstance(state[1], str) or state[1] not in ("<", ">", "=", "|"):
            raise Damaged("a byte order that does not exist")
        self._order = state[1]

    def array(self, content: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
        """Return the array stored in `content`, copied, in the byte order of this machine."""
        if not isinstance(content, bytes | bytearray):
            raise Damaged("an array without bytes")
        kind = np.dtype(self._order + self._code)
        if check_shape(shape) * kind.itemsize != len(content):
            raise Damaged(f"an array of shape {shape} in {len(content)} bytes")
        if kind.kind == "b":
            return (np.frombuffer(content, np.uint8) != 0).reshape(shape, order=order)
        return np.frombuffer(content, kind).astype(kind.newbyteorder("=")).reshape(shape, order=order)


class Array:
    """`numpy.ndarray` before its state is known."""

    array: np.ndarray | None = None

    def set_state(self, state: Any) -> np.ndarray:
        """Return the array of a state (version, shape, dtype, whether columns come first, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Dtype):
            raise Damaged("an array without a type")
        self.array = state[2].array(state[4], state[1], "F" if state[3] is True else "C")
        return self.array


def check_shape(shape: Any) -> int:
    """Return the number of entries of a shape from a file, which must be a tuple of whole numbers from 0."""
    if not isinstance(shape, tuple) or len(shape) > MOST_DIMENSIONS or any(type(side) is not int for side in shape):
        raise Damaged("a shape that is none")
    sides = math.prod(side for side in shape if side)
    if any(side < 0 for side in shape) or sides > (MOST_EMPTY if 0 in shape else MOST_NUMBERS):
        raise Damaged("a shape that cannot be")
    return 0 if 0 in shape else sides


def empty_array(kind: Any, shape: Any, code: Any) -> Array:
    """Stand in for `_reconstruct`; the state follows."""
    return Array()


def scalar(dtype: Any, content: Any) -> Any:
    """Return a number with a type."""
    return array_of(content, dtype, (), "C")[()]


def array_of(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Stand in for `_frombuffer`, with which pickle's newer protocols store arrays."""
    if not isinstance(dtype, Dtype) or order not in ("C", "F"):
        raise Damaged("an array without a type")
    return dtype.array(content, shape, order)
