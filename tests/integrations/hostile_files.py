"""Writes checkpoints that nobody should open: pickles put together by hand, in archives put together by hand."""

import struct
import zipfile

import pytest

from specpolicy import SpecpolicyError
from specpolicy.integrations.unpickling import load

FOUR = {"0": struct.pack("<4f", 1, 2, 3, 4)}  # a storage of four numbers


def refused(path, match=None, what=load):
    """The one line that opening the file ends in."""
    with pytest.raises(SpecpolicyError, match=match) as caught:
        what(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 800 and message.isprintable()
    return message


def write_archive(path, pickle, storages=None, root="archive", compression=zipfile.ZIP_STORED, extra=()):
    """An archive as `torch.save` lays it out; extra: more members, (name, content)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickle)
        archive.writestr(f"{root}/byteorder", "little")
        for key, content in (storages or {}).items():
            archive.writestr(f"{root}/data/{key}", content)
        archive.writestr(f"{root}/version", "3\n")
        for name, content in extra:
            archive.writestr(name, content)
    return path


def program(*parts):
    """A pickle of protocol 2 of opcodes and their arguments."""
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value):
    """Push text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def data(value):
    """Push bytes."""
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value):
    """Push a whole number."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def name(full):
    """Push a function or a class."""
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def many(*parts):
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(function, *arguments):
    """Call a function by its name."""
    return name(function) + many(*arguments) + b"R"


def put(index):
    """Remember what is on top."""
    return b"r" + struct.pack("<I", index)


def get(index):
    """Push what was remembered."""
    return b"j" + struct.pack("<I", index)


def storage(numbers, kind="torch.FloatStorage", key="0"):
    """A storage by its persistent id."""
    return many(text("storage"), name(kind), text(key), text("cpu"), integer(numbers)) + b"Q"


def tensor(*arguments, numbers=4, kind="torch.FloatStorage"):
    """A tensor of a storage of four bytes a number: offset, size, stride."""
    return call(
        "torch._utils._rebuild_tensor_v2", storage(numbers, kind), *arguments, b"\x89", call("collections.OrderedDict")
    )


def mapping(*pairs):
    """A dictionary, whose keys and values are given one after the other."""
    return b"}(" + b"".join(pairs) + b"u"
