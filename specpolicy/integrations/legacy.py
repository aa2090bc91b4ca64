"""The file format of `torch.save` before version 1.6, still available as an option: pickles, then storages, end to end.

The pickles are a magic number, the protocol, the sizes of C's types, the content, and the names of the storages in
order. Each storage is its length in numbers (8 bytes), then its bytes. There are no checksums.
"""

import struct
from typing import IO, Any

from specpolicy.integrations.budget import MOST_PICKLE_BYTES, Damaged, Refused, memory
from specpolicy.integrations.machine import Machine
from specpolicy.integrations.tensors import STORAGES, Tensors
from specpolicy.parsing import shown

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LINE = 1000  # bytes of a name in a pickle


class _Reader:
    """A file whose reads are limited to the size of a pickle."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        """Read bytes, fewer at the end of the file."""
        if count > MOST_PICKLE_BYTES:
            raise Refused(f"{count} bytes at once")
        return self._file.read(count)

    def readline(self) -> bytes:
        """Read a line."""
        return self._file.readline(LINE)


class _Storages:
    """Storages whose bytes follow after the pickles."""

    def __init__(self, most: int):
        self._left = most
        self.buffers: dict[str, memoryview] = {}
        self.sizes: dict[str, int] = {}

    def announce(self, described: Any) -> None:
        """Record the size that a persistent id claims, which the file must be able to hold."""
        if not isinstance(described, tuple) or len(described) < 5:
            raise Damaged("a storage that is none")
        kind, key, _, count = described[1:5]
        full = getattr(kind, "full", "")
        if full not in STORAGES or not isinstance(key, str) or type(count) is not int or count < 0:
            raise Damaged("a storage without a type")
        if key not in self.sizes:
            self.sizes[key] = count * STORAGES[full].itemsize
            self._left -= self.sizes[key]
            if self._left < 0:
                raise Damaged("the file is truncated")

    def storage_size(self, key: str) -> int:
        """Return the announced bytes of a storage."""
        return self.sizes[key]

    def read_storage(self, key: str, into: memoryview) -> None:
        """Keep the place for the bytes."""
        self.buffers[key] = into


def read(file: IO[bytes], size: int) -> Any:
    """Return the content of a file in the old format.

    Args:
        file: open at its start.
        size: its bytes.
    """
    if size > memory():
        raise Refused(f"{size} bytes, more than this machine has memory,")
    source = _Storages(size)
    tensors = Tensors(source)

    def storage(described: Any) -> Any:
        source.announce(described)
        return tensors.storage(described)

    reader: Any = _Reader(file)
    machine = Machine(storage, tensors.calls(), set(STORAGES))
    if machine.run(reader) != MAGIC or machine.run(reader) != PROTOCOL:
        raise Damaged("it does not begin as a file of torch.save does")
    system = machine.run(reader)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("numbers in big byte order")
    content, keys = machine.run(reader), machine.run(reader)
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or sorted(keys) != sorted(source.buffers)
    ):
        raise Damaged("its list of storages is not that of its tensors")
    for key in keys:
        buffer, values = source.buffers[key], tensors.storages[key].values
        count = file.read(8)
        if len(count) < 8:
            raise Damaged("the file is truncated")
        if struct.unpack("<q", count) != (len(values),):
            raise Damaged(f"the storage {shown(key)} has another size than it says")
        if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            raise Damaged("the file is truncated")
        tensors.storages[key].settle()
    if file.read(1):
        raise Damaged("it goes on after its end")
    return content
