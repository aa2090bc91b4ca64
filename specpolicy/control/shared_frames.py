"""Observations in memory that the control loop and its inference process share.

The memory has no name, so nothing is left behind, however either of the two ends.
"""

import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from specpolicy.control.chunk import History
from specpolicy.errors import SpecpolicyError

ALIGNMENT = 64  # bytes: a cache line


@dataclass(frozen=True)
class Place:
    """Position of an array in the memory."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


Layout = tuple[Place, ...]


def layout_of(history: Mapping[str, np.ndarray]) -> Layout:
    """Return places for the arrays of a history, one after the other.

    Raises:
        SpecpolicyError: an array holds Python objects, which no other process can see.
    """
    places, offset = [], 0
    for key, value in history.items():
        if value.dtype.hasobject:
            raise SpecpolicyError(f"observation '{key}' holds {value.dtype}, not numbers")
        places.append(Place(key, value.shape, value.dtype, offset))
        offset += -(-value.nbytes // ALIGNMENT) * ALIGNMENT
    return tuple(places)


def check_layout(history: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Raise unless the arrays of a history fit the places of the first one.

    Raises:
        SpecpolicyError: another key, shape or dtype.
    """
    places = {place.key: place for place in layout}
    if history.keys() != places.keys():
        raise SpecpolicyError(f"observed are {', '.join(history)}, at the start it was {', '.join(places)}")
    for key, value in history.items():
        place = places[key]
        if (value.shape, value.dtype) != (place.shape, place.dtype):
            raise SpecpolicyError(
                f"observation '{key}' is {value.dtype} of shape {value.shape}, "
                f"at the start it was {place.dtype} of shape {place.shape}"
            )


def new_memory() -> int:
    """Return the file descriptor of an empty memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("specpolicy observations")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def reserve(descriptor: int, layout: Layout) -> None:
    """Make the memory as large as the layout needs, all at once, because there may be less memory later.

    Raises:
        SpecpolicyError: there is not enough memory.
    """
    size = _size(layout)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        elif os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise SpecpolicyError(f"no memory for observations of {size / 2**20:.0f} MiB: {error.strerror}") from error


class SharedFrames:
    """One history at a time in shared memory. The two processes tell each other who may write and who may read.

    Args:
        descriptor: of a memory in which the layout has been reserved.
        layout: places of the arrays.
    """

    def __init__(self, descriptor: int, layout: Layout):
        memory = mmap.mmap(descriptor, _size(layout))
        self._views: dict[str, np.ndarray] = {
            place.key: np.ndarray(place.shape, place.dtype, buffer=memory, offset=place.offset) for place in layout
        }

    def write(self, history: History) -> None:
        """Copy a history into the memory."""
        for key, view in self._views.items():
            view[...] = history[key]

    def read(self) -> dict[str, np.ndarray]:
        """Return a copy of the history in the memory."""
        return {key: np.array(view) for key, view in self._views.items()}


def _size(layout: Layout) -> int:
    ends = (place.offset + place.dtype.itemsize * int(np.prod(place.shape, dtype=np.int64)) for place in layout)
    return max(1, *ends, 1)
