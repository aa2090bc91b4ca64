"""A small file costs little, and says in one line why it was not opened."""

import os
import resource
import struct

import pytest
from hostile_files import (
    call,
    data,
    get,
    integer,
    name,
    program,
    put,
    refused,
    text,
    write_archive,
)

from specpolicy import load_policy
from specpolicy.integrations.unpickling import load

MEMORY = 400 * 2**20  # what a small file may cost beyond what the process had


def nested(count, opening, closing):
    """Containers in containers."""
    return opening * count + b"N" + closing * count


COSTLY = {
    "bytearray of a number": call("builtins.bytearray", integer(2**28)),
    "list of a bytearray": call("builtins.list", call("builtins.bytearray", integer(2**28))),
    "bytes of a number": call("builtins.bytes", integer(2**40)),
    "set of a list, again and again": b"]"
    + b"("
    + b"K\x01" * 5000
    + b"e"
    + put(0)
    + (name("builtins.set") + get(0) + b"\x85R0") * 1000
    + b"N",
    "text encoded again and again": text("a" * 2**20)
    + put(0)
    + (name("_codecs.encode") + get(0) + text("latin1") + b"\x86R") * 400
    + b"]",
    "path of long parts": text("a" * 2**20) + put(0) + name("pathlib.PosixPath") + b"(" + get(0) * 4000 + b"tR",
    "slice": call("builtins.slice", text("a"), integer(1)),
    "complex of text": call("builtins.complex", text("1" * 10_000)),
    "number of a million bits": b"\x8b" + struct.pack("<i", 2**17) + b"\x7f" * 2**17,
    "claimed number": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x7f",
    "claimed text": b"\x8d" + struct.pack("<Q", 2**50) + b"a",
    "claimed bytes": b"\x8e" + struct.pack("<Q", 2**63 - 1) + b"a",
    "claimed bytearray": b"\x96" + struct.pack("<Q", 2**40) + b"a",
    "opcodes": b"N0" * 600_000 + b"N",
    "nested lists": nested(100_000, b"]", b"a"),
    "nested dictionaries": b"}N" * 50_000 + b"N" + b"s" * 50_000,
    "nested tuples": b"N" + b"\x85" * 100_000,
    "nested states": (name("omegaconf.dictconfig.DictConfig") + b")\x81}" + text("_content")) * 3000
    + b"N"
    + b"sb" * 3000,
    "doubled tuples": text("a") + put(0) + b"".join(get(n) + get(n) + b"\x86" + put(n + 1) for n in range(60)),
    "doubled lists": b"]" + put(0) + b"".join(b"](" + get(n) * 2 + b"e" + put(n + 1) for n in range(60)),
    "wide tuples": text("a") + put(0) + b"".join(b"(" + get(n) * 1000 + b"t" + put(n + 1) for n in range(9)),
    "a list in itself": b"]" + put(0) + get(0) + b"a",
    "a key that is deep": b"}N" + b"\x85" * 50 + b"Ns",
    "a key that collides": b"}" + integer(2**61 - 1) + b"Ns",
    "deep set": call("builtins.set", b"]N" + b"\x85" * 50 + b"a"),
    "pairs that are none": call("collections.OrderedDict", b"](Ne"),
    "stack without end": b"(" * 900_000,
    "nothing on the stack": b"R",
    "empty": b"",
}


@pytest.fixture
def little_memory():
    """What is allocated beyond a bound fails, instead of taking the machine."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("case", COSTLY)
def test_a_pickle_that_costs_too_much(case, tmp_path, little_memory):
    empty = b"s" + text("state_dicts") + b"}s"
    path = write_archive(tmp_path / "x.ckpt", program(b"}" + text("cfg"), COSTLY[case], empty))
    message = refused(path, "asks for|cannot be read|which no policy has", load_policy)
    assert "MemoryError" not in message


def test_a_memo_with_gaps_costs_nothing(tmp_path, little_memory):
    path = write_archive(tmp_path / "x.pt", program(b"K\x07r" + struct.pack("<I", 2**32 - 1)))
    assert load(path) == 7


def test_a_member_of_more_than_a_pickle(tmp_path):
    path = tmp_path / "x.pt"
    write_archive(path, program(data(bytes(2**25 + 1))))
    refused(path, "asks for a data.pkl of")


def test_a_file_with_holes(tmp_path):
    path = tmp_path / "x.pt"
    with open(path, "wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2**40)
    refused(path, "GiB of tensors")


def test_more_members_than_tensors(tmp_path):
    path = tmp_path / "x.pt"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 0, 4, 0)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**40, 2**40, 0, 4)
    path.write_bytes(b"PK\x03\x04" + wide + struct.pack("<4sLQL", b"PK\x06\x07", 0, 4, 1) + end)
    refused(path, "asks for 1099511627776 members")


def test_more_members_than_it_says(tmp_path):
    path = tmp_path / "x.pt"
    one = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, *[0] * 7, 9, *[0] * 6) + b"archive/a"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 200_000 * len(one), 4, 0)
    path.write_bytes(b"PK\x03\x04" + one * 200_000 + end)
    refused(path, "asks for 200000 members")
