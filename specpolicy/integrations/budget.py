"""Limits on the cost of reading a stranger's checkpoint, and the two errors when reading ends without one.

The limits leave room for the largest checkpoints of these projects. An image policy has up to a thousand tensors, which
Diffusion Policy saves four times (weights, average, two moments of the optimiser), at 40 opcodes each, and
configurations of a few thousand values. With large vision transformers its file has a few gigabytes.
"""

import os

MIB = 2**20
GIB = 2**30
MOST_OPCODES = 1_000_000  # of a pickle, and of the items that its calls go through; 3 s
MOST_PICKLE_BYTES = 32 * MIB  # of a pickle without its tensors; 5,000 tensors take 1 MiB
MOST_DEPTH = 64  # nested containers
MOST_ITEMS = 10_000_000  # of a container, counting shared items each time
MOST_ARCHIVE_BYTES = 16 * GIB
MOST_MEMBERS = 100_000  # of an archive: a tensor each
MOST_VALUES = 200_000  # of a configuration


class Refused(Exception):
    """The file needs something that checkpoints of these projects do not need."""


class Damaged(Exception):
    """The file is not as its writer wrote it."""


class Budget:
    """Counts down a limit."""

    def __init__(self, most: int, what: str):
        self._left, self._most, self._what = most, most, what

    def spend(self, amount: int) -> None:
        """Raise `Refused` when the total exceeds `most`."""
        self._left -= amount
        if self._left < 0:
            raise Refused(f"more than {self._most} {self._what}")


def memory() -> int:
    """Return the bytes of memory of this machine; the largest archive where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return MOST_ARCHIVE_BYTES
