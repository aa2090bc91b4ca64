"""Replay buffers of strangers: no codec but those of numbers runs, and none unpacks more than its array says."""

import json
import os
import pickle
import shutil
import struct
import tomllib
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from test_zarr_buffer import FRAMES, HORIZON, write

from specpolicy import SpecpolicyError
from specpolicy.data.dataset import load_sequences, observation_keys

zarr = pytest.importorskip("zarr")


class Touch:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def change(path, name, **changes):
    """Other metadata for an array; None removes an entry."""
    file = next(one for one in (path / name / ".zarray", path / name / "zarr.json") if one.exists())
    found = json.loads(file.read_text())
    found = {key: value for key, value in {**found, **changes}.items() if value is not ...}
    file.write_text(json.dumps(found))


def chunk(path, name):
    """A file with numbers of an array."""
    return next(one for one in sorted((path / name).rglob("*")) if one.is_file() and one.name[0] not in ".z")


def refused(path, match, key="state"):
    """The one line that reading ends in."""
    with pytest.raises(SpecpolicyError, match=match) as caught:
        load_sequences(path, [key], FRAMES, HORIZON)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("packed", ("directory", "zip"))
@pytest.mark.parametrize("place", ("filter", "compressor", "fill value"))
@pytest.mark.parametrize("name", ("data/action", "data/state", "meta/episode_ends"))
def test_nothing_is_unpickled(name, place, packed, tmp_path):
    mark = tmp_path / "ran"
    path = write(tmp_path / "replay.zarr")
    bad = pickle.dumps(np.array([Touch(mark)], dtype=object))
    codec = {"id": "pickle", "protocol": 5}
    changes = {"filters": None, "compressor": codec} if place == "compressor" else {"filters": [codec]}
    change(path, name, dtype="|O", fill_value="gASVAAAAAAAAAAAu" if place == "fill value" else None, **changes)
    chunk(path, name).write_bytes(bad)
    if packed == "zip":
        path = shutil.make_archive(str(path), "zip", path)
    expected = "no vectors data/state" if name == "data/state" else "is packed by 'pickle'"
    refused(path, expected)
    assert not mark.exists()


@pytest.mark.parametrize("codec", sorted(set(numcodecs.registry.codec_registry) - {"blosc", "lz4", "zstd"}))
def test_codecs_that_are_not_on_the_list(codec, tmp_path):
    path = write(tmp_path / "replay.zarr")
    change(path, "data/state", compressor={"id": codec})
    refused(path, f"data/state is packed by '{codec}'")
    change(path, "data/state", compressor=None, filters=[{"id": codec}])
    refused(path, f"data/state is packed by '{codec}'")


@pytest.mark.parametrize("codec", ("gzip", "sharding_indexed", "numcodecs.pickle", "vlen-utf8", "transpose"))
def test_nor_in_the_newer_format(codec, tmp_path):
    path = write(tmp_path / "replay.zarr", 3)
    change(path, "data/state", codecs=[{"name": codec, "configuration": {}}])
    refused(path, f"data/state is packed by '{codec}'")


@pytest.mark.parametrize("dtype", ("|O", "<U4", "|S4", "<M8[ns]", [["a", "<f4"]], "<c8", "|V8"))
def test_what_is_no_number(dtype, tmp_path):
    path = write(tmp_path / "replay.zarr")
    change(path, "data/action", dtype=dtype)
    refused(path, "data/action holds other things than numbers")


def test_images_may_be_packed_in_any_way(tmp_path):
    path = write(tmp_path / "replay.zarr")
    change(path, "data/img", compressor={"id": "imagecodecs_jpegxl", "level": 99})
    assert observation_keys(path) == ["keypoint", "n_contacts", "state"]
    assert len(load_sequences(path, ["state"], FRAMES, HORIZON, None)) == 12


@pytest.mark.parametrize(
    "codec", (numcodecs.Blosc("lz4"), numcodecs.Blosc("zstd", shuffle=2), numcodecs.Zstd(), numcodecs.LZ4(), None)
)
def test_codecs_of_numbers_are_read(codec, tmp_path):
    path = write(tmp_path / "replay.zarr", data__state=None)
    root = zarr.open_group(str(path), mode="a")
    values = np.arange(60, dtype=np.float32).reshape(12, 5)
    array = root.create_array("data/state", shape=(12, 5), chunks=(5, 5), dtype="f4", compressors=codec)
    array[:] = values
    found = load_sequences(path, ["state"], 1, HORIZON, None).observation["state"]
    np.testing.assert_array_equal(found[:, 0], values)


@pytest.mark.parametrize(
    "codec, content",
    (
        (numcodecs.Blosc("zstd"), None),
        (numcodecs.Zstd(), None),
        (numcodecs.LZ4(), None),
        (numcodecs.Zstd(), b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**50) + bytes(9)),
        (numcodecs.Zstd(), b"\x28\xb5\x2f\xfd\x00" + bytes(20)),
        (numcodecs.Blosc(), b"\x02\x01\x21\x04" + struct.pack("<LLL", 2**32 - 1, 2**20, 40) + bytes(30)),
        (None, bytes(10_000)),
    ),
)
def test_chunks_that_unpack_to_more(codec, content, tmp_path):
    path = write(tmp_path / "replay.zarr")
    change(path, "data/state", compressor=codec and codec.get_config(), filters=None)
    chunk(path, "data/state").write_bytes(content or codec.encode(bytes(2**24)))
    refused(path, r"data/state cannot be read \(the chunk .* is larger than its array says\)")


@pytest.mark.parametrize(
    "changes, complaint",
    (
        ({"shape": [2**40, 5]}, "rows|too large"),
        ({"shape": [12, 2**40]}, "no vectors data/state"),
        ({"chunks": [2**40, 5]}, "too large"),
        ({"chunks": [0, 5]}, "not understood"),
        ({"chunks": [-1, 5]}, "not understood"),
        ({"chunks": [5]}, "cannot be read"),
        ({"shape": "12"}, "not understood"),
        ({"shape": [12.5, 5]}, "not understood"),
        ({"compressor": "pickle"}, "not understood"),
        ({"compressor": ...}, "not understood"),
    ),
)
def test_metadata_that_cannot_be(changes, complaint, tmp_path):
    path = write(tmp_path / "replay.zarr")
    change(path, "data/state", **changes)
    refused(path, complaint)


@pytest.mark.parametrize(
    "changes, complaint",
    (({"shape": [2**40, 2], "chunks": [2**20, 2]}, "too large"), ({"shape": [2**40, 2]}, "too large")),
)
def test_rows_that_are_not_there(changes, complaint, tmp_path):
    path = write(tmp_path / "replay.zarr", meta__episode_ends=np.array([2**40]))
    change(path, "data/action", **changes)
    refused(path, complaint)


def test_chunks_without_number(tmp_path):
    path = write(tmp_path / "replay.zarr", meta__episode_ends=np.array([2**28]))
    change(path, "data/action", shape=[2**28, 1], chunks=[1, 1], dtype="|u1")
    refused(path, "has 268435456 chunks")


def test_the_metadata_of_the_whole_store_are_not_believed(tmp_path):
    path = write(tmp_path / "replay.zarr")
    own = json.loads((path / "data/state/.zarray").read_text())
    whole = {"data/state/.zarray": {**own, "dtype": "|O", "filters": [{"id": "pickle"}]}, ".zgroup": {"zarr_format": 2}}
    (path / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": whole}))
    assert len(load_sequences(path, ["state"], FRAMES, HORIZON, None)) == 12


def test_chunks_that_are_no_files(tmp_path):
    path = write(tmp_path / "replay.zarr")
    file = chunk(path, "data/state")
    file.unlink()
    file.symlink_to("/dev/zero")
    refused(path, "no regular file")
    file.unlink()
    os.mkfifo(file)
    refused(path, "no regular file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path):
    path = Path(shutil.make_archive(str(tmp_path / "replay.zarr"), "zip", write(tmp_path / "replay.zarr")))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data/state/.zarray", "{}")
    refused(path, "two members of one name")


def test_the_packages_that_unpickle_are_not_allowed():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["data"]]
    floors = dict(one.split(">=") for one in needed if ">=" in one)
    assert tuple(map(int, floors["zarr"].split("."))) >= (3,)
    assert tuple(map(int, floors["torch"].split("."))) >= (2, 6)


@pytest.mark.parametrize("kind", ("pipe", "endless", "large", "folder"))
@pytest.mark.parametrize("name", ("data/action", "data/state", "meta/episode_ends"))
def test_attributes_that_never_end(name, kind, tmp_path):
    path = write(tmp_path / "replay.zarr")
    attributes = path / name / ".zattrs"
    attributes.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(attributes)
    elif kind == "endless":
        attributes.symlink_to("/dev/zero")
    elif kind == "large":
        attributes.write_text("{" + " " * 2**21 + "}")
    else:
        (tmp_path / "other").mkdir()
        (path / name / "more").symlink_to(tmp_path / "other")
    refused(path, r"no regular file|\.zattrs has|is a link to another folder")


@pytest.mark.parametrize("key, encoding", (("c.0.0", "default"), ("c/0/0", "default"), ("0.0", "v2"), ("0/0", "v2")))
def test_chunks_are_measured_by_whatever_name(key, encoding, tmp_path):
    path = tmp_path / "replay.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, values in {
        "data/action": np.zeros((9, 2), np.float32),
        "data/state": np.zeros((9, 5), np.float32),
        "meta/episode_ends": np.array([9]),
    }.items():
        root.create_array(name, data=values)
    separator = "/" if "/" in key else "."
    encoding = {"name": encoding, "configuration": {"separator": separator}}
    change(path, "data/state", chunk_key_encoding=encoding)
    shutil.rmtree(path / "data/state/c", ignore_errors=True)
    place = path / "data/state" / key
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(numcodecs.Zstd().encode(np.ones((9, 5), np.float32)))
    assert (load_sequences(path, ["state"], 1, HORIZON, None).observation["state"] == 1).all()
    place.write_bytes(numcodecs.Zstd().encode(bytes(2**24)))
    refused(path, r"data/state cannot be read \(the chunk .* is larger than its array says\)")


def test_gigabytes_that_no_chunk_holds(tmp_path):
    path = write(tmp_path / "replay.zarr", meta__episode_ends=np.array([2**28]))
    change(path, "data/action", shape=[2**28, 1], chunks=[2**20, 1])
    refused(path, r"data/action says it has the shape \[268435456, 1\], which is more than it can hold")


@pytest.mark.parametrize("name", ("data/state/.zarray", "data/action/.zarray", "data/img/.zarray"))
def test_a_zip_with_damaged_metadata(name, tmp_path):
    folder = write(tmp_path / "replay.zarr")
    path = tmp_path / "replay.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
        place = archive.getinfo(name).header_offset + 30 + len(name) + 5
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    refused(path, "Bad CRC")
