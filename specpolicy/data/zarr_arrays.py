"""Checks a stranger's zarr arrays by their metadata before zarr reads one.

zarr decodes a chunk with any codec that the metadata names. numcodecs has one that unpickles, and others that make
gigabytes from a few bytes. So only numbers are read, packed by codecs that state their unpacked size, in chunks of the
size that the array states. Arrays that are not asked for, such as images, may be packed in any way: they are not
opened. Of the two formats, diffusion_policy writes 2.
"""

import math
import os
import re
import struct
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_regular, parse_json, shown

CODECS = ("blosc", "lz4", "zstd")  # their chunks begin with their size
BESIDES = ("bytes", "endian", "crc32c")  # of format 3: the order of bytes, a checksum
KINDS = {"bool": "b", "int": "i", "uint": "u", "float": "f"}
MIB, GIB = 2**20, 2**30
MOST_METADATA, MOST_BYTES, MOST_CHUNK, MOST_CHUNKS = MIB, 4 * GIB, GIB, 200_000
MOST_MEMBERS = 5_000_000  # of a zip
METADATA = (".zarray", ".zattrs", "zarr.json")  # any other file of an array holds a chunk, whatever its name
# Missing chunks are the fill value: a file of a hundred bytes may claim gigabytes of it.
FILLED, PACKED = 64 * MIB, 1100
ZSTD, SIZES = b"\x28\xb5\x2f\xfd", {0: 0, 1: 2, 2: 4, 3: 8}


@dataclass(frozen=True)
class Description:
    """An array, by its metadata. `kind`: numpy's letter, "" for anything but numbers. `codecs`: all that unpack it."""

    version: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    kind: str
    itemsize: int
    codecs: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of an unpacked chunk."""
        return math.prod(self.chunks) * self.itemsize


class Files(ABC):
    """The files of a store by their names, with slashes."""

    @abstractmethod
    def children(self, folder: str) -> list[str]:
        """Return the names of files and folders in a folder, sorted."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder, relative to it."""

    @abstractmethod
    def read(self, name: str, most: int) -> tuple[int, bytes]:
        """Return (size, the first `most` bytes) of a file; (-1, b"") if there is none."""

    def describe(self, name: str) -> Description | None:
        """Return the description of an array; None if there is no such array.

        Raises:
            SpecpolicyError: its metadata cannot be understood.
        """
        for file, version in ((".zarray", 2), ("zarr.json", 3)):
            size, content = self.read(f"{name}/{file}", MOST_METADATA)
            if size < 0:
                continue
            if size > MOST_METADATA:
                raise SpecpolicyError(f"{name}/{file} has {size} bytes")
            found = parse_json(content, f"{name}/{file}")
            if version == 3 and found.get("node_type") != "array":
                return None
            try:
                return _version_2(found) if version == 2 else _version_3(found)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise SpecpolicyError(f"{name}/{file} is not understood ({type(error).__name__}: {error})") from None
        return None

    def check(self, name: str, array: Description) -> None:
        """Raise unless an array can be read: numbers only, by known codecs, no more than its metadata say.

        Raises:
            SpecpolicyError: it cannot.
        """
        known = CODECS + BESIDES if array.version == 3 else CODECS
        unknown = [codec for codec in array.codecs if codec not in known]
        if unknown:
            raise SpecpolicyError(f"{name} is packed by {shown(unknown[0])}: {', '.join(CODECS)} are read, or none")
        packed = [codec for codec in array.codecs if codec in CODECS]
        if not array.kind or len(packed) > 1:
            raise SpecpolicyError(f"{name} holds other things than numbers, or is packed twice")
        count = math.prod(math.ceil(side / chunk) for side, chunk in zip(array.shape, array.chunks, strict=True))
        if array.nbytes > MOST_BYTES or array.chunk_bytes > MOST_CHUNK:
            raise SpecpolicyError(f"{name} says it has the shape {list(array.shape)}: that is too large")
        if count > MOST_CHUNKS:
            raise SpecpolicyError(f"{name} has {count} chunks: that is too many")
        stored = 0
        for file in self.names(name):
            size, start = self.read(f"{name}/{file}", 32)
            if file in METADATA:
                if size > MOST_METADATA:
                    raise SpecpolicyError(f"{name}/{file} has {size} bytes")
                continue
            stored += size
            if size > array.chunk_bytes * 1.1 + 4096 or _unpacked(packed, size, start) > array.chunk_bytes:
                raise SpecpolicyError(f"{name} cannot be read (the chunk {file} is larger than its array says)")
        if array.nbytes > FILLED + PACKED * stored:
            raise SpecpolicyError(f"{name} says it has the shape {list(array.shape)}, which is more than it can hold")


class Folder(Files):
    """A store that is a directory."""

    def __init__(self, path: Path):
        self._path = path

    def children(self, folder: str) -> list[str]:
        """See `Files`."""
        place = self._path / folder
        return sorted(one.name for one in place.iterdir()) if place.is_dir() else []

    def names(self, folder: str) -> list[str]:
        """See `Files`. Raises for a link to a folder, which may lead in circles."""
        found: list[str] = []
        for place, folders, files in os.walk(self._path / folder):
            below = Path(place).relative_to(self._path / folder)
            found += [(below / file).as_posix() for file in files]
            for one in folders:
                if (Path(place) / one).is_symlink():
                    raise SpecpolicyError(f"{folder}/{(below / one).as_posix()} is a link to another folder: copy that")
        return sorted(found)

    def read(self, name: str, most: int) -> tuple[int, bytes]:
        """See `Files`."""
        path = self._path / name
        if not path.exists():
            return -1, b""
        size = check_regular(path)
        with path.open("rb") as file:
            return size, file.read(most)


class Zip(Files):
    """A store that is a zip file."""

    def __init__(self, path: Path):
        self._zip = zipfile.ZipFile(path)
        members = self._zip.infolist()
        self._members = {member.filename: member for member in members if not member.is_dir()}
        if len(members) > MOST_MEMBERS or len(self._members) < sum(not member.is_dir() for member in members):
            raise SpecpolicyError("has two members of one name, or too many")

    def children(self, folder: str) -> list[str]:
        """See `Files`."""
        return sorted({name.partition("/")[0] for name in self.names(folder)})

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        below = f"{folder}/"
        return sorted(name.removeprefix(below) for name in self._members if name.startswith(below))

    def read(self, name: str, most: int) -> tuple[int, bytes]:
        """See `Files`."""
        if name not in self._members:
            return -1, b""
        with self._zip.open(name) as file:
            return self._members[name].file_size, file.read(most)


def _version_2(found: dict[str, Any]) -> Description:
    kind, itemsize = "", 1
    # A list is a structure, "|O" an object, "<U9" text.
    if isinstance(found["dtype"], str) and (parts := re.fullmatch("[<>|=]([biuf])([1248])", found["dtype"])):
        kind, itemsize = parts[1], int(parts[2])
    packed = [*(found.get("filters") or []), *([found["compressor"]] if found["compressor"] is not None else [])]
    codecs = tuple(str(codec["id"]) for codec in packed)
    return Description(2, _sides(found["shape"]), _sides(found["chunks"], 1), kind, itemsize, codecs)


def _version_3(found: dict[str, Any]) -> Description:
    kind, itemsize = "", 1
    if parts := re.fullmatch("(int|uint|float)(8|16|32|64)", str(found["data_type"])):
        kind, itemsize = KINDS[parts[1]], int(parts[2]) // 8
    elif found["data_type"] == "bool":
        kind = KINDS["bool"]
    if found.get("storage_transformers") or found["chunk_grid"]["name"] != "regular":
        raise ValueError("its chunks are not regular")
    chunks = _sides(found["chunk_grid"]["configuration"]["chunk_shape"], 1)
    codecs = tuple(str(codec["name"] if isinstance(codec, dict) else codec) for codec in found["codecs"])
    return Description(3, _sides(found["shape"]), chunks, kind, itemsize, codecs)


def _sides(value: Any, least: int = 0) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(side) is not int or side < least for side in value):
        raise ValueError(f"{shown(value)} is no shape")
    return tuple(value)


def _unpacked(packed: list[str], size: int, start: bytes) -> int:
    """Return the unpacked size in bytes that a chunk states."""
    try:
        match packed:
            case ["blosc"]:
                return struct.unpack_from("<L", start, 4)[0]
            case ["lz4"]:
                return struct.unpack_from("<L", start)[0]
            case ["zstd"]:
                return _zstd_size(start)
        return size if len(start) < 32 else size - 4  # perhaps with a checksum
    except struct.error:
        return 0  # too short for its codec, which reports it


def _zstd_size(start: bytes) -> int:
    """Return the content size in the header of a frame (RFC 8878, 3.1.1.1); the limit if it is missing."""
    if start[:4] != ZSTD:
        return 0  # not a frame: the codec reports it
    flag, single = start[4] >> 6, start[4] >> 5 & 1
    length = SIZES[flag] or single
    place = 5 + (not single) + (0, 1, 2, 4)[start[4] & 3]
    if not length:
        return MOST_BYTES
    return int.from_bytes(start[place : place + length], "little") + (256 if length == 2 else 0)
