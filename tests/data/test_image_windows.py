"""Windows of images: the bytes of the file, read when they are asked for, in any process, and no others."""

import json
import pickle
import zlib

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.data.dataset import image_keys, load_sequences, observation_keys, read_data, windows
from specpolicy.data.frames import Cache
from specpolicy.data.lerobot_writer import write_lerobot
from specpolicy.data.robomimic_hdf5 import Demonstration, assemble, write_part
from specpolicy.data.robomimic_images import HDF5Images
from specpolicy.training import TrainingOptions, run_identity

KEYS = ["top_image", "agent_pos"]
LENGTHS, SIZE, FRAMES, HORIZON = (5, 7, 4), (6, 8, 3), 2, 4


def pictures(number, length):
    """Noise that says which demonstration and step it belongs to."""
    return np.random.default_rng(number).integers(0, 256, (length + 1, *SIZE), np.uint8)


@pytest.fixture
def parts(tmp_path):
    """Part files as collect writes them."""
    paths = []
    for number, length in enumerate(LENGTHS):
        step = np.arange(length + 1)[:, None]
        seen = {"agent_pos": 100.0 * number + step + [0, 0.5], "top_image": pictures(number, length)}
        actions = np.hstack([number + 0 * step, step])[:-1].astype(np.float32)
        dones = (np.arange(length) == length - 1).astype(np.int64)
        one = Demonstration(actions, np.zeros((length, 0)), np.zeros(length), dones, seen, success=True)
        paths.append(tmp_path / f"part_{number}.hdf5")
        write_part(paths[-1], one, True)
    return paths


@pytest.fixture
def demonstrations(parts, tmp_path):
    path = tmp_path / "demos.hdf5"
    assemble(path, parts, {}, {}, [1], 10.0)
    return path


@pytest.fixture
def lerobot(parts, tmp_path):
    pytest.importorskip("pyarrow")
    write_lerobot(tmp_path / "lerobot", parts, {}, {"task": {}, "collection": {}}, [1], 10.0)
    return tmp_path / "lerobot"


def expected(numbers, stride=1):
    """The windows of some demonstrations, from arrays in memory."""
    found = []
    for number in numbers:
        images = pictures(number, LENGTHS[number])[:-1][::stride]
        step = np.arange(len(images))[:, None]
        found.append(images[np.clip(step + np.arange(1 - FRAMES, 1), 0, None)])
    return np.concatenate(found)


@pytest.fixture
def read(monkeypatch):
    """A list of what has been read: place and numbers of the images."""
    calls = []
    original = HDF5Images.read

    def noted(self, where, steps):
        calls.append((where, steps.tolist()))
        return original(self, where, steps)

    monkeypatch.setattr(HDF5Images, "read", noted)
    return calls


@pytest.mark.parametrize("kind", ["demonstrations", "lerobot"])
def test_windows_hold_the_bytes_of_the_file(kind, request):
    path = request.getfixturevalue(kind)
    assert image_keys(path) == ["top_image"] and observation_keys(path) == ["agent_pos"]
    for split, numbers in (("train", [0, 2]), ("valid", [1])):
        sequences = load_sequences(path, KEYS, FRAMES, HORIZON, split)
        whole, images = expected(numbers), sequences.images["top_image"]
        assert set(sequences.observation) == {"agent_pos"} and len(images) == len(sequences) == len(whole)
        assert images.shape == whole.shape and images.size == SIZE
        assert sequences.shapes() == {"agent_pos": 2, "top_image": (3, 6, 8)}
        np.testing.assert_array_equal(images[:], whole)
        rows = torch.tensor([3, 0, 3, 1])
        seen = sequences.seen(rows)
        assert seen["top_image"].dtype == torch.uint8 and seen["agent_pos"].dtype == torch.float32
        np.testing.assert_array_equal(seen["top_image"], whole[rows.numpy()])
        torch.testing.assert_close(seen["agent_pos"], sequences.observation["agent_pos"][rows])
        np.testing.assert_array_equal(images[2], whole[2])
    strided = windows(read_data(path, KEYS), FRAMES, HORIZON, "train", stride=2)
    np.testing.assert_array_equal(strided.images["top_image"][:], expected([0, 2], stride=2))


def test_both_kinds_have_one_fingerprint_of_their_own_images(demonstrations, lerobot):
    one, other = (read_data(path, KEYS).fingerprint for path in (demonstrations, demonstrations))
    assert one == other
    with h5py.File(demonstrations, "a") as file:
        file["data/demo_2/obs/top_image"][3, 0, 0, 0] += 1
    assert read_data(demonstrations, KEYS).fingerprint != one


@pytest.mark.parametrize("stride", (1, 2))
def test_a_training_reads_all_images_once_to_tell_data_apart(demonstrations, stride, monkeypatch, small_policy):
    """Its identity and the fingerprint of the data are both hashes of them."""
    whole = read_data(demonstrations, KEYS).fingerprint
    read, reading = [], HDF5Images.read
    monkeypatch.setattr(
        HDF5Images, "read", lambda self, where, steps: read.append((where, len(steps))) or reading(self, where, steps)
    )
    data = read_data(demonstrations, KEYS)
    parts = [windows(data, FRAMES, HORIZON, split, stride=stride) for split in ("train", "valid")]
    run_identity(small_policy, *parts, TrainingOptions())
    assert data.fingerprint == whole
    again = 0 if stride == 1 else len(LENGTHS)  # of the data, though a training with a stride sees a part of them
    assert len(read) == len(LENGTHS) + again
    copied = pickle.loads(pickle.dumps(data))
    assert copied.fingerprint == whole and len(read) == 2 * len(LENGTHS) + again  # another process reads for itself


def test_only_what_is_asked_for_is_read(demonstrations, read):
    sequences = load_sequences(demonstrations, KEYS, FRAMES, HORIZON, "train")
    sequences.ranges(), sequences.shapes()
    assert not read
    sequences.images["top_image"][[0, 3, 6]]  # the third is of the last demonstration
    assert read == [("data/demo_0/obs/top_image", [0, 2, 3]), ("data/demo_2/obs/top_image", [0, 1])]


def test_a_cache_reads_once_and_keeps_within_its_bytes(demonstrations, read):
    data = read_data(demonstrations, KEYS)
    images = windows(data, FRAMES, HORIZON, "train", cache_bytes=4 * 144).images["top_image"]  # four images
    whole = expected([0, 2])
    for rows in ([1, 2], [2, 1], [8, 0, 4], [5, 5]):
        np.testing.assert_array_equal(images[rows], whole[rows])
        assert images.cache.nbytes <= 4 * 144
    place = "data/demo_0/obs/top_image"
    assert read[:2] == [(place, [0, 1, 2]), (place, [3, 4])]  # what is there already is not read again
    large = windows(data, FRAMES, HORIZON, "train", cache_bytes=10**6).images["top_image"]
    large[:]
    read.clear()
    np.testing.assert_array_equal(large[:], whole)
    assert not read
    small = Cache(10, 5)
    small.put((0, 0), np.zeros(11, np.uint8))
    assert small.get((0, 0)) is None and small.nbytes == 0


def test_a_cache_keeps_copies_in_one_block_of_memory():
    """Arrays of their own, between the large ones of training steps, would leave holes many times their size."""
    cache, image = Cache(30, 100), np.arange(10, dtype=np.uint8)
    for number in range(3):
        cache.put((0, number), image + number)
    image[:] = 99
    kept = [cache.get((0, number)) for number in range(3)]
    assert len({id(one.base) for one in kept}) == 1 and kept[0].base.nbytes == cache.nbytes == 30
    for number, one in enumerate(kept):
        np.testing.assert_array_equal(one, np.arange(10) + number)
    cache.get((0, 0))
    cache.put((0, 3), image)  # in the place of the one that was looked at longest ago
    assert cache.get((0, 1)) is None and cache.nbytes == 30
    np.testing.assert_array_equal(cache.get((0, 0)), np.arange(10))
    np.testing.assert_array_equal(cache.get((0, 3)), image)
    assert Cache(10**12, 2).nbytes == 0
    few = Cache(10**12, 2)
    few.put((0, 0), image)
    assert few.get((0, 0)).base.nbytes == 20  # as many places as there are images


def test_other_processes_open_the_file_for_themselves(demonstrations):
    """They get what reads images pickled, without the parent's handle and cache."""
    images = windows(read_data(demonstrations, KEYS), FRAMES, HORIZON, "train", cache_bytes=10**6).images["top_image"]
    whole = expected([0, 2])
    np.testing.assert_array_equal(images[:], whole)
    copy = pickle.loads(pickle.dumps(images))
    assert copy.cache.nbytes == 0 and copy.episodes[0].source._opened is None
    assert copy.episodes[0].source is copy.episodes[1].source  # one file, open once
    np.testing.assert_array_equal(copy[:], whole)
    batches = DataLoader(
        range(len(whole)), 4, collate_fn=copy.__getitem__, num_workers=1, multiprocessing_context="spawn"
    )
    np.testing.assert_array_equal(torch.cat(list(batches)), whole)


def test_after_a_fork_the_file_is_opened_anew(demonstrations, monkeypatch):
    """A child must not read through its parent's handle."""
    images = load_sequences(demonstrations, KEYS, FRAMES, HORIZON, "train").images["top_image"]
    images[0]
    source = images.episodes[0].source
    handle = source.opened
    assert source.opened is handle
    monkeypatch.setattr("specpolicy.data.frames.os.getpid", lambda: -5)
    assert source.opened is not handle
    np.testing.assert_array_equal(images[:], expected([0, 2]))


@pytest.mark.parametrize(
    ("demo", "values", "words"),
    [
        (0, np.zeros((5, *SIZE), np.float32), "obs/top_image holds float32, and images are bytes"),
        (0, np.zeros((5, 3, 6, 8), np.uint8), "with the channels first: expected"),
        (0, np.zeros((5, 6, 8, 2), np.uint8), r"expected \(5, height, width, 3\)"),
        (0, np.zeros((4, *SIZE), np.uint8), r"has shape \(4, 6, 8, 3\), expected \(5, height"),
        (2, np.zeros((4, 6, 9, 3), np.uint8), r"has shape \(4, 6, 9, 3\), expected \(4, 6, 8, 3\)"),
        (2, np.zeros((4, 3)), r"has shape \(4, 3\), expected \(4, 6, 8, 3\)"),
    ],
)
def test_other_layouts_are_refused_by_name(demonstrations, demo, values, words):
    with h5py.File(demonstrations, "a") as file:
        del file[f"data/demo_{demo}/obs/top_image"]
        file[f"data/demo_{demo}/obs/top_image"] = values
    with pytest.raises(SpecpolicyError, match=words):
        read_data(demonstrations, KEYS)


def test_images_that_are_not_packed_are_read_as_well(demonstrations):
    """As robomimic's first data sets have them: one piece, no compression."""
    with h5py.File(demonstrations, "a") as file:
        for number in range(3):
            values = file[f"data/demo_{number}/obs/top_image"][()]
            del file[f"data/demo_{number}/obs/top_image"]
            file[f"data/demo_{number}/obs/top_image"] = values
    images = load_sequences(demonstrations, KEYS, FRAMES, HORIZON, "train").images["top_image"]
    np.testing.assert_array_equal(images[:], expected([0, 2]))


def test_a_damaged_chunk_and_a_lost_file_are_one_line(demonstrations):
    images = load_sequences(demonstrations, KEYS, FRAMES, HORIZON, "train").images["top_image"]
    with h5py.File(demonstrations) as file:
        place = file["data/demo_0/obs/top_image"].id.get_chunk_info(2)
    with demonstrations.open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\0" * place.size)
    images[[0, 1]]
    with pytest.raises(SpecpolicyError, match="obs/top_image cannot be read") as caught:
        images[2]
    assert "\n" not in str(caught.value)
    demonstrations.unlink()
    with pytest.raises(SpecpolicyError, match="is not a readable HDF5 file"):
        pickle.loads(pickle.dumps(images))[0]


def change(lerobot, entries, kind=None):
    """Replace the images of the first file."""
    import pyarrow as pa
    from pyarrow import parquet

    file = lerobot / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    column = pa.array(entries(table.column("observation.images.top").to_pylist()), type=kind)
    index = table.column_names.index("observation.images.top")
    parquet.write_table(table.set_column(index, "observation.images.top", column), file)


def test_a_data_set_of_lerobots_own_is_read_by_its_features(lerobot):
    (lerobot / "meta/specpolicy.json").unlink()
    assert image_keys(lerobot) == ["observation.images.top"]
    sequences = load_sequences(lerobot, ["observation.state", "observation.images.top"], FRAMES, HORIZON, "train")
    np.testing.assert_array_equal(sequences.images["observation.images.top"][:], expected([0, 2]))


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (lambda one: {**one, "bytes": None}, "holds no image: files of images are not read"),
        (lambda one: {**one, "bytes": b"GIF89a"}, "is no readable PNG or JPEG image"),
        (lambda one: {**one, "bytes": one["bytes"][:60]}, "is no readable PNG or JPEG image"),
    ],
)
def test_damaged_entries_are_one_line(lerobot, spoilt, words):
    change(lerobot, lambda rows: [spoilt(one) if row == 4 else one for row, one in enumerate(rows)])
    images = load_sequences(lerobot, KEYS, FRAMES, HORIZON, "train").images["top_image"]
    images[[0, 1, 2]]
    with pytest.raises(SpecpolicyError, match=words) as caught:
        images[4]
    assert "row 4" in str(caught.value) and "\n" not in str(caught.value)


def test_columns_that_hold_no_images_are_refused(lerobot):
    import pyarrow as pa

    change(lerobot, lambda rows: [row % 7 for row in range(len(rows))], pa.int64())
    with pytest.raises(SpecpolicyError, match="holds int64, expected images"):
        load_sequences(lerobot, KEYS, FRAMES, HORIZON, "train")


def test_an_image_that_says_it_is_very_large_is_not_unpacked(lerobot):
    def large(rows):
        width = (100_000).to_bytes(4, "big")
        first = bytearray(rows[0]["bytes"])
        first[16:20], first[20:24] = width, width
        first[29:33] = zlib.crc32(bytes(first[12:29])).to_bytes(4, "big")
        return [{**rows[0], "bytes": bytes(first)}, *rows[1:]]

    change(lerobot, large)
    with pytest.raises(SpecpolicyError, match=r"100000 x 100000|readable PNG"):
        load_sequences(lerobot, KEYS, FRAMES, HORIZON, "train")


def test_another_size_than_the_first_is_refused(lerobot):
    from specpolicy.data.png import to_png

    other = {"bytes": to_png(np.zeros((6, 9, 3), np.uint8)), "path": "x.png"}
    change(lerobot, lambda rows: [*rows[:-1], other])
    images = load_sequences(lerobot, KEYS, FRAMES, HORIZON, "valid").images["top_image"]
    with pytest.raises(SpecpolicyError, match=r"has shape \(6, 9, 3\), expected \(6, 8, 3\)"):
        images[6]


def test_a_damaged_list_of_our_own_images_is_said(lerobot):
    file = lerobot / "meta/specpolicy.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": ["top"]}))
    with pytest.raises(SpecpolicyError, match="is damaged"):
        read_data(lerobot, KEYS)


def test_training_does_not_leave_images_out_in_silence(demonstrations, tmp_path, capsys):
    keys = "task.observation_keys=[agent_pos,top_image]"
    assert main(["train", "task=push_t", keys, f"data={demonstrations}", f"output={tmp_path / 'out'}"]) == 2
    assert (
        "'top_image' is an image, and policy=unet sees none: use one that does, such as policy=unet_image"
        in capsys.readouterr().err
    )
