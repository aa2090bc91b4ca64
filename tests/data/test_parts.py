"""Every loader keeps to what the data say their parts are, and to the documented rule where they say nothing."""

import pytest
import torch
from written import KEY, KINDS, LENGTHS, change_info, episodes, write, write_lerobot, write_robomimic, write_zarr

from specpolicy import SpecpolicyError
from specpolicy.data.dataset import load_sequences

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

ALL = set(range(len(LENGTHS)))
NAMING = tuple(kind for kind in KINDS if kind != "zarr")  # the kinds that name parts


def load(path, split, validation=0.25):
    return load_sequences(path, [KEY], 2, 6, split, validation)


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("name", ["test", "testing", "eval", "holdout", "unseen"])
def test_no_test_episode_is_trained_or_validated_on(tmp_path, kind, name):
    path = write(kind, tmp_path, parts={"train": [0, 1, 2], name: [3]})
    train, valid = episodes(load(path, "train")), episodes(load(path, "valid"))
    assert train and valid and not train & valid and train | valid == {0, 1, 2}
    assert episodes(load(path, name)) == {3}  # for who asks for it by its name


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("name", ["valid", "val", "validation"])
def test_what_the_data_name_for_validation_is_it(tmp_path, kind, name):
    path = write(kind, tmp_path, parts={"train": [0, 1], name: [2], "test": [3]})
    assert episodes(load(path, "train")) == {0, 1}
    assert episodes(load(path, "valid")) == {2}


@pytest.mark.parametrize("kind", NAMING)
def test_train_alone_is_never_left(tmp_path, kind):
    path = write(kind, tmp_path, parts={"train": [0, 2] if kind == "robomimic" else [1, 2]})
    train, valid = episodes(load(path, "train")), episodes(load(path, "valid"))
    assert len(train) == len(valid) == 1
    assert train | valid == ({0, 2} if kind == "robomimic" else {1, 2})


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_is_held_out_where_nothing_is_said(tmp_path, kind):
    path = write(kind, tmp_path)
    train, valid = load(path, "train"), load(path, "valid")
    assert episodes(train) | episodes(valid) == episodes(load(path, None)) == ALL
    assert len(episodes(valid)) == 1 and not episodes(train) & episodes(valid)
    torch.testing.assert_close(load(path, "valid").action, valid.action, rtol=0, atol=0)
    assert len(episodes(load(path, "valid", validation=0.5))) == 2


def test_the_share_is_the_same_one_in_every_kind(tmp_path):
    for kind in KINDS:
        (tmp_path / kind).mkdir()
    held = [episodes(load(write(kind, tmp_path / kind), "valid")) for kind in KINDS]
    assert all(one == held[0] for one in held)


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("one, other", [("train", "valid"), ("train", "test"), ("val", "test"), ("train", "eval")])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_parts_that_share_an_episode_are_refused(tmp_path, kind, one, other, split):
    parts = {"train": [0, 1], one: [0, 1], other: [1, 2]}
    if one != "train":
        parts |= {"train": [3], one: [0, 1]}
    path = write(kind, tmp_path, parts=parts)
    with pytest.raises(SpecpolicyError, match=f"episode (demo_)?1 is in '({one}|{other})' and in") as error:
        load(path, split)
    assert "\n" not in str(error.value)


def test_filter_keys_without_a_role_may_overlap(tmp_path):
    parts = {"train": [0, 1, 2], "valid": [3], "20_percent": [0, 3], "better": [1]}
    path = write_robomimic(tmp_path / "demos.hdf5", parts=parts)
    assert episodes(load(path, "train")) == {0, 1, 2}
    assert episodes(load(path, "20_percent")) == {0, 3}


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("parts", [{"test": [3]}, {"val": [3]}, {"training": [0, 1], "test": [3]}, {"better": [0, 1]}])
def test_parts_without_train_are_refused(tmp_path, kind, parts):
    path = write(kind, tmp_path, parts=parts)
    for split in ("train", "valid"):
        with pytest.raises(SpecpolicyError, match="has no 'train'"):
            load(path, split)


@pytest.mark.parametrize("kind", NAMING)
def test_a_split_that_is_not_there(tmp_path, kind):
    with pytest.raises(SpecpolicyError, match="no split 'better'"):
        load(write(kind, tmp_path, parts={"train": [0, 1]}), "better")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "text",
    ["all", "", "0", ":2", "0:", "2:1", "0:5", "3:9", "0:2,3:4", "0:4:2", "-1:2", "0:-1", "0.0:2", " 0 : 2 ", "0:2\n",
     "+0:2", "0x0:2", "0:1_0", "\u0660:2", "50%", f"0:{10**30}", 3, None, [0, 1], {"from": 0}, True],
)  # fmt: skip
@pytest.mark.parametrize("name", ["train", "val", "test", "other"])
def test_what_a_split_cannot_say_is_refused(tmp_path, version, text, name):
    root = write_lerobot(tmp_path / "data", version=version)
    change_info(root, splits={"train": "0:2", name: text})
    with pytest.raises(SpecpolicyError, match=rf"{name}.*expected|splits\.{name}") as error:
        load(root, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("splits", ["0:2", ["0:2"], 3])
def test_splits_that_are_no_mapping(tmp_path, splits):
    root = write_lerobot(tmp_path / "data")
    change_info(root, splits=splits)
    with pytest.raises(SpecpolicyError, match="splits"):
        load(root, "train")


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("name", ["train", "valid"])
def test_an_empty_part_is_refused(tmp_path, kind, name):
    others = {"train": [0, 1], "valid": [2]}
    path = write(kind, tmp_path, parts={key: numbers for key, numbers in others.items() if key != name})
    if kind == "robomimic":
        path.unlink()
        write_robomimic(path, parts={**others, name: []})
    else:
        change_info(path, splits={"train": "0:2", "valid": "2:3", name: "1:1"})
    with pytest.raises(SpecpolicyError, match=f"'{name}' has no episodes"):
        load(path, name)


@pytest.mark.parametrize("name", ["split", "train_mask", "episode_split", "is_test", "valid"])
def test_a_buffer_that_divides_its_episodes_is_not_read_past_it(tmp_path, name):
    path = write_zarr(tmp_path / "replay.zarr", **{f"meta/{name}": [0, 0, 0, 1]})
    with pytest.raises(SpecpolicyError, match=f"meta/{name} .*not understood"):
        load(path, "train")
