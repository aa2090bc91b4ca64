"""The zip archives that `torch.save` writes: `<root>/data.pkl`, `<root>/data/<key>` for each storage, and a few notes.

torch stores its members one after the other, never compressed. An archive in any other form is refused before anything
in it is read, so there is only one way to read an archive: it holds no code, it does not grow when it is opened, and no
two members share bytes. Every member is read to its end, where its checksum is compared.
"""

import struct
import sys
import zipfile
from typing import IO

from specpolicy.integrations.budget import (
    GIB,
    MIB,
    MOST_ARCHIVE_BYTES,
    MOST_MEMBERS,
    MOST_PICKLE_BYTES,
    Damaged,
    Refused,
    memory,
)
from specpolicy.parsing import shown

SIGNATURE = b"PK\x03\x04"
NEWEST = 10  # version of the format that torch knows
LOCAL, END = struct.Struct("<4s22xHH"), struct.Struct("<4s4H2LH")
LOCATOR, END_64 = struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
ENCRYPTED = 0x1 | 0x40 | 0x2000
COPIED = 16 * MIB  # at once


class Archive:
    """A checked archive, open for reading."""

    def __init__(self, file: IO[bytes], size: int):
        """Open and check an archive.

        Args:
            file: the open file.
            size: its bytes.

        Raises:
            Refused, Damaged: not an archive that `torch.save` wrote.
        """
        directory = _directory(file, size)
        self._zip = zipfile.ZipFile(file)
        members = self._zip.infolist()
        self._root = _root(members)
        _check_members(members)
        _check_places(file, members, directory)
        self._members = {member.filename.removeprefix(self._root): member for member in members}
        if "data.pkl" not in self._members:
            raise Damaged("it has no data.pkl")
        self._unread = dict(self._members)
        self._check_notes()

    def pickle(self) -> bytes:
        """Return the pickle that describes the contents."""
        return self._small("data.pkl", MOST_PICKLE_BYTES)

    def storage_size(self, key: str) -> int:
        """Return the bytes of a storage."""
        if f"data/{key}" not in self._members:
            raise Damaged(f"it has no data/{key}")
        return self._members[f"data/{key}"].file_size

    def read_storage(self, key: str, into: memoryview) -> None:
        """Fill `into`, which has the size of the storage, with its bytes."""
        self._read(f"data/{key}", into)

    def finish(self) -> None:
        """Read all remaining members, so that damage anywhere is found."""
        scratch = memoryview(bytearray(COPIED if self._unread else 0))
        for name in list(self._unread):
            with self._zip.open(self._unread.pop(name)) as member:
                while member.readinto(scratch):  # type: ignore[attr-defined]
                    pass

    def _small(self, name: str, most: int) -> bytes:
        size = self._members[name].file_size
        if size > most:
            raise Refused(f"a {name} of {size} bytes")
        content = bytearray(size)
        self._read(name, memoryview(content))
        return bytes(content)

    def _read(self, name: str, into: memoryview) -> None:
        self._unread.pop(name, None)
        with self._zip.open(self._members[name]) as member:
            position = 0
            while position < len(into):
                count = member.readinto(into[position : position + COPIED])  # type: ignore[attr-defined]
                if not count:
                    raise Damaged("the file is truncated")
                position += count
            member.read(1)  # the checksum is compared at the end

    def _check_notes(self) -> None:
        if "byteorder" in self._members and (order := self._small("byteorder", 16).decode()) != sys.byteorder:
            raise Refused(f"numbers in {order} byte order")
        if "version" in self._members:
            version = self._small("version", 16).decode().strip()
            if not version.isdecimal() or int(version) > NEWEST:
                raise Refused(f"version {version} of torch's format")


def _directory(file: IO[bytes], size: int) -> int:
    """Return the start of the list of members. It must end where the file does, so that there is only one list."""
    if size > MOST_ARCHIVE_BYTES:
        raise Refused(f"{size / GIB:.1f} GiB of tensors")
    if size > memory():
        raise Refused(f"{size / GIB:.1f} GiB of tensors, more than this machine has memory,")
    end = size - END.size
    signature, disk, _, _, count, length, start, comment = _unpack(file, END, end)
    if signature != b"PK\x05\x06" or comment or disk:
        raise Damaged("the file is truncated")
    # torch always writes the wider form of this record too, and its position.
    locator = end - LOCATOR.size
    signature, _, place, _ = _unpack(file, LOCATOR, locator) if locator > 0 else (b"", 0, 0, 0)
    if signature == b"PK\x06\x07":
        end = place
        found = _unpack(file, END_64, end)
        if found[0] != b"PK\x06\x06" or end + END_64.size != locator:
            raise Damaged("its list of members is not where it says")
        count, length, start = found[7:10]
    if start + length != end:
        raise Damaged("its list of members is not where it says")
    if count > MOST_MEMBERS or length > MOST_MEMBERS * 1024:
        raise Refused(f"{count} members")
    file.seek(start)
    if (listed := file.read(length).count(b"PK\x01\x02")) > MOST_MEMBERS:  # each entry begins so, whatever the count
        raise Refused(f"{listed} members")
    return start


def _unpack(file: IO[bytes], kind: struct.Struct, position: int) -> tuple:
    if position < 0:
        raise Damaged("the file is truncated")
    file.seek(position)
    found = file.read(kind.size)
    if len(found) < kind.size:
        raise Damaged("the file is truncated")
    return kind.unpack(found)


def _root(members: list[zipfile.ZipInfo]) -> str:
    """Return the directory of all members, with its slash."""
    root = members[0].filename.partition("/")[0] if members else ""
    if root in ("", ".", ".."):
        raise Damaged("it has no members")
    return f"{root}/"


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    """Raise unless `torch.save` could have written the list of members."""
    root, seen = _root(members), set()
    for member in members:
        name = member.filename
        parts = name.split("/")
        if len(parts) < 2 or f"{parts[0]}/" != root or {"", ".", ".."} & set(parts) or member.orig_filename != name:
            raise Refused(f"a member named {shown(name)}")
        if parts[1] in ("constants.pkl", "code"):
            raise Refused("TorchScript, which is code,")
        if name in seen:
            raise Refused(f"two members named {shown(name)}")
        seen.add(name)
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise Refused(f"a compressed member, {shown(name)},")
        if member.flag_bits & ENCRYPTED:
            raise Refused(f"an encrypted member, {shown(name)},")


def _check_places(file: IO[bytes], members: list[zipfile.ZipInfo], directory: int) -> None:
    """Raise unless the members follow each other, before their list."""
    position = 0
    for member in sorted(members, key=lambda one: one.header_offset):
        if member.header_offset < position:
            raise Refused(f"members that overlap, such as {shown(member.filename)},")
        signature, *lengths = _unpack(file, LOCAL, member.header_offset)
        if signature != SIGNATURE:
            raise Damaged(f"{shown(member.filename)} is not where it should be")
        position = member.header_offset + LOCAL.size + sum(lengths) + member.file_size
        if position > directory:
            raise Damaged(f"{shown(member.filename)} is truncated")
