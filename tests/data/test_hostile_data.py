"""Data files of strangers: they hold what they say, in themselves, and are files."""

import os

import h5py
import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.data import bounds
from specpolicy.data.dataset import load_sequences

FRAMES, HORIZON = 2, 4


def write(path, **datasets):
    """Demonstrations in robomimic's layout; datasets: functions that write one in place of the numbers."""
    with h5py.File(path, "w") as file:
        for number in range(3):
            demo = file.create_group(f"data/demo_{number}")
            for name, width in (("actions", 2), ("obs/state", 3)):
                if number == 1 and name.rpartition("/")[2] in datasets:
                    datasets[name.rpartition("/")[2]](demo, name)
                else:
                    demo[name] = np.ones((8, width))
            demo.attrs["num_samples"] = 8
        if "mask" in datasets:
            datasets["mask"](file, "mask/train")
    return path


@pytest.fixture
def secret(tmp_path):
    """Another file of the machine, of numbers."""
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.full((8, 3), 7.0)
    np.full((8, 3), 7.0).tofile(tmp_path / "secret.bin")
    return path


def refused(path, match):
    """The one line that reading ends in."""
    with pytest.raises(SpecpolicyError, match=match) as caught:
        load_sequences(path, ["state"], FRAMES, HORIZON, None)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_other_files_of_the_machine_are_not_read(secret, tmp_path):
    def external(demo, name):
        demo.create_dataset(name, (8, 3), "f8", external=[(str(secret.with_suffix(".bin")), 0, 8 * 3 * 8)])

    def linked(demo, name):
        demo[name] = h5py.ExternalLink(str(secret), "/numbers")

    def virtual(demo, name):
        layout = h5py.VirtualLayout((8, 3), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "numbers", (8, 3))
        demo.create_virtual_dataset(name, layout)

    for place in (external, linked, virtual):
        refused(write(tmp_path / "demos.hdf5", state=place), "data/demo_1/obs/state lies in another file")
    refused(write(tmp_path / "demos.hdf5", mask=linked), "mask/train lies in another file|no list of names")


@pytest.mark.parametrize("shape", ((8, 2**40), (8, 2**24)))
def test_numbers_that_are_not_there(shape, tmp_path):
    def claimed(demo, name):
        demo.create_dataset(name, shape, "f8", chunks=(1, 1024), compression="gzip")

    refused(write(tmp_path / "demos.hdf5", state=claimed), "expected|more than it can hold")


def test_a_first_demonstration_that_claims_much(tmp_path):
    path = tmp_path / "demos.hdf5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo.create_dataset("actions", (2**34, 2), "f8", chunks=(1024, 2), compression="gzip")
        demo.create_dataset("obs/state", (2**34, 3), "f8", chunks=(1024, 3), compression="gzip")
    refused(path, "more than it can hold")


def test_a_mask_that_claims_much(tmp_path):
    def claimed(file, name):
        file.create_dataset(name, (2**40,), "S16", chunks=(1024,))

    refused(write(tmp_path / "demos.hdf5", mask=claimed), "mask/train says it has the shape")


def test_numbers_that_pack_well_are_read(tmp_path):
    def packed(demo, name):
        demo.create_dataset(name, data=np.zeros((8, 3)), compression="gzip", compression_opts=9)

    path = write(tmp_path / "demos.hdf5", state=packed)
    assert len(load_sequences(path, ["state"], FRAMES, HORIZON, None)) == 24


def test_a_table_of_more_numbers_than_memory(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"a.b": [[1.0] * 100] * 50, "index": [1] * 50, "image": [b"x" * 9000] * 50}), file)
    metadata = parquet.read_metadata(file)
    monkeypatch.setattr(bounds, "MOST_BYTES", 8 * 100 * 50)
    bounds.check_table(metadata, ["a.b", "index"][:1], file)
    monkeypatch.setattr(bounds, "MOST_BYTES", 8 * 100 * 50 - 1)
    bounds.check_table(metadata, ["index"], file)
    with pytest.raises(SpecpolicyError, match="50 rows, 5000 numbers"):
        bounds.check_table(metadata, ["a.b"], file)


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "demos.hdf5")
    refused(tmp_path / "demos.hdf5", "no regular file|holds no data set")
