"""Archives of strangers: one parser, chosen by us; what is changed or missing shows."""

import os
import struct
import zipfile

import pytest
import torch
from hostile_files import (
    FOUR,
    program,
    refused,
    text,
    write_archive,
)

from specpolicy import SpecpolicyError, load_policy
from specpolicy.integrations.unpickling import load


def test_torchscript_is_refused_before_anything_is_read(tmp_path):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def forward(self, x):
            return self.linear(x)

    path = tmp_path / "policy.ckpt"
    torch.jit.script(Module()).save(str(path))
    refused(path, "asks for TorchScript")
    refused(path, "asks for TorchScript", load_policy)


@pytest.mark.parametrize("extra", ("constants.pkl", "code/__torch__.py"))
def test_nor_does_a_trace_of_it_pass(extra, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(b"}"), extra=[(f"archive/{extra}", b"")]), "TorchScript")


@pytest.mark.parametrize(
    "extra, reason",
    (
        ("archive/data.pkl", "two members"),
        ("archive/data/0", "two members"),
        ("other/data.pkl", "a member named"),
        ("archive/../../escape", "a member named"),
        ("/archive/data/1", "a member named"),
        ("archive/data/", "a member named"),
        ("alone", "a member named"),
    ),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_torch_does_not_write(extra, reason, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(b"}"), FOUR, extra=[(extra, b"")]), reason)


def test_compressed_members(tmp_path):
    bomb = write_archive(tmp_path / "x.pt", program(text("a" * 2**24)), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    refused(bomb, "a compressed member")


def test_members_that_share_bytes(tmp_path):
    path = write_archive(tmp_path / "x.pt", program(b"}"), {"0": b"a" * 64, "1": b"a" * 64})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"archive/data/{key}").header_offset for key in "01")
    # The second entry of the list is made to point at the first member.
    place = content.rfind(struct.pack("<I", second))
    content[place : place + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    refused(path, "overlap")


def test_encrypted_members(tmp_path):
    path = write_archive(tmp_path / "x.pt", program(b"}"))
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x01\x02")
    content[place + 8] |= 1
    path.write_bytes(content)
    refused(path, "an encrypted member")


@pytest.mark.parametrize("content", (b"", b"\x80", b"PK", b"PK\x03\x04", b"{}", b"\x80\x02}.", b"c" * 999))
def test_what_is_no_archive(content, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    refused(path, "cannot be read")


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "zero.ckpt").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.ckpt", tmp_path / "zero.ckpt", tmp_path):
        refused(path, "a file must be there")


def test_numbers_in_the_other_byte_order(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program(b"}"))
        archive.writestr("a/byteorder", "big")
    refused(path, "in big byte order")


@pytest.fixture(scope="class")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x.pt"
    torch.save({"weights": torch.arange(100.0), "more": {"half": torch.ones(7).half()}, "n": 3}, path)
    return path


def test_a_changed_byte_is_seen_or_changes_nothing(checkpoint, tmp_path):
    whole, path = checkpoint.read_bytes(), tmp_path / "x.pt"
    seen = 0
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 0x40
        path.write_bytes(content)
        try:
            found = load(path)
        except SpecpolicyError:
            seen += 1
            continue
        assert torch.equal(found["weights"], torch.arange(100.0)) and found["n"] == 3
        assert torch.equal(found["more"]["half"], torch.ones(7).half())
    assert seen > len(whole) / 20  # the rest is padding


def test_a_changed_weight_is_named(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    path = tmp_path / "x.pt"
    path.write_bytes(content.replace(struct.pack("<f", 42.0), struct.pack("<f", 43.0)))
    refused(path, "Bad CRC-32 for file 'x/data/0'")


def test_damage_to_what_nobody_asks_for(tmp_path):
    path = write_archive(tmp_path / "x.pt", program(b"}"), {"0": b"abcdefgh"})
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdefgx"))
    refused(path, "Bad CRC-32")


def test_truncation_is_named(checkpoint, tmp_path):
    whole, path = checkpoint.read_bytes(), tmp_path / "x.pt"
    for length in range(4, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        refused(path, "the file is truncated")


def test_truncation_of_the_old_format(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"x": torch.ones(50)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in range(1, len(whole), 5):
        path.write_bytes(whole[:length])
        refused(path, "cannot be read")
    path.write_bytes(whole + b"x")
    refused(path, "goes on after its end")


@pytest.mark.parametrize("what", (load, load_policy))
@pytest.mark.parametrize("length", (256, 5000))
def test_a_name_that_no_file_can_have(length, what, tmp_path):
    with pytest.raises(SpecpolicyError, match="cannot be read: File name too long"):
        what(tmp_path / ("a" * length))
