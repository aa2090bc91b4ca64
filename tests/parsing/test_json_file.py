"""JSON files of strangers: read, or refused on one line, without waiting and without eating memory."""

import json
import os

import pytest

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import read_json

REFUSED = {
    "empty": (b"", "is not valid JSON"),
    "cut off": (b'{"a": [1, 2', "is not valid JSON"),
    "two values": (b"{} {}", "is not valid JSON"),
    "no object": (b"[1]", "holds a list of 1 in place of an object"),
    "a number": (b"3", "holds 3 in place of an object"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "no Unicode"),
    "half a surrogate pair as a key": (b'{"\\ud800": 1}', "no Unicode"),
    "NaN": (b'{"a": NaN}', "NaN is no number"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is no number"),
    "an infinite float": (b'{"a": 1e999}', "is too large"),
    "a huge integer": (b'{"a": ' + b"9" * 100000 + b"}", "is too large"),
    "an integer beyond 64 bits": (b'{"a": 100000000000000000000}', "is too large"),
    "a key twice": (b'{"a": {"b": 1, "b": 2}}', "the key 'b' stands twice"),
    "deep": (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper than 32"),
    "very deep": (b'{"a": ' + b"[" * 500000 + b"]" * 500000 + b"}", "nested"),
    "a null byte": (b"\x00" * 100, "is not valid JSON"),
    "large": (b" " * (8 * 2**20) + b"{}", "larger than 8 MiB"),
}


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED)
def test_what_is_no_json_object_is_refused(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(SpecpolicyError) as error:
        read_json(path)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def fifo(path):
    os.mkfifo(path)


PLACES = {
    "nothing": (lambda path: None, "does not exist"),
    "a broken link": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "a loop of links": (lambda path: path.symlink_to(path), "cannot be read"),
    "a directory": (lambda path: path.mkdir(), "is a directory"),
    "a pipe": (fifo, "no regular file"),
    "a link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "a link to a terminal": (lambda path: path.symlink_to("/dev/tty"), "no regular file"),
}


@pytest.mark.parametrize("make, message", PLACES.values(), ids=PLACES)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, make, message):
    path = tmp_path / "config.json"
    make(path)
    with pytest.raises(SpecpolicyError, match=message):
        read_json(path)


def test_a_sparse_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(SpecpolicyError, match="larger than 8 MiB"):
        read_json(path)


def test_what_we_write_is_read(tmp_path):
    value = {"a": [1, -2.5, None, True, "é\n"], "b": {"c": {}}, "large": 2**62, "": []}
    (tmp_path / "config.json").write_text(json.dumps(value))
    (tmp_path / "link.json").symlink_to("config.json")
    assert read_json(tmp_path / "config.json") == read_json(str(tmp_path / "link.json")) == value
