"""Output directories: one run at a time, locks that end with their process, full disks, and what is deleted."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from specpolicy import SpecpolicyError
from specpolicy.files import atomic_path, failure_to_write, write_text, writing
from specpolicy.outputs import (
    LOCK,
    claim,
    claim_path,
    default_name,
    file_name,
    first_difference,
    matching,
    refuse_several_processes,
    remove,
    remove_temporary,
)

HOLD = """
import sys, time
from specpolicy.outputs import claim
with claim(sys.argv[1], "train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds an output."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@contextlib.contextmanager
def full_disk(size=4096):
    """Files of this process cannot grow beyond `size` bytes, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_told_whose_the_output_is(tmp_path, holder):
    with pytest.raises(SpecpolicyError) as caught, claim(tmp_path / "run", "evaluate"):
        pytest.fail("two runs hold one output")
    words = str(caught.value)
    assert "in use by specpolicy train" in words and f"process {holder.pid} " in words and "\n" not in words
    with claim(tmp_path / "other", "train"):
        pass  # its neighbour is free


def test_a_killed_run_leaves_no_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()  # nobody could remove it
    with claim(tmp_path / "run", "train"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_one_process_cannot_hold_it_twice_and_gives_it_back(tmp_path):
    for _ in range(2):
        with claim(tmp_path, "train"), pytest.raises(SpecpolicyError, match="in use"), claim(tmp_path, "train"):
            pytest.fail("held twice")


def test_the_place_of_a_file_is_held(tmp_path):
    path = tmp_path / "new" / "lift.hdf5"
    with (
        claim_path(path, "collect"),
        claim_path(tmp_path / "new" / "can.hdf5", "collect"),
        pytest.raises(SpecpolicyError, match=r"lift\.hdf5 is in use by specpolicy collect"),
        claim_path(path, "collect"),
    ):
        pytest.fail("held twice")
    assert not (tmp_path / "new").exists()  # nothing came of it


def test_directories_that_nothing_was_written_into_are_removed_again(tmp_path):
    with pytest.raises(KeyError), claim(tmp_path / "a" / "b", "train"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), claim(tmp_path / "a" / "b", "train") as output:
        (output / "metrics.csv").touch()
        raise KeyError
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["metrics.csv"]


def test_the_root_the_home_and_files_are_no_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "home").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for place in ("/", tmp_path, tmp_path / "home", tmp_path / "file", tmp_path / "file" / "below", "/proc/1/below"):
        with pytest.raises(SpecpolicyError) as caught, claim(place, "train"):
            pytest.fail(f"{place} was taken")
        assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"home", "file"}


@pytest.mark.parametrize(
    ("variables", "refused"),
    (
        ({"WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, True),
        ({"WORLD_SIZE": "16"}, True),
        ({"RANK": "3"}, True),
        ({"WORLD_SIZE": "1", "RANK": "0"}, False),
        ({"WORLD_SIZE": "many", "RANK": ""}, False),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_PROCID": "0"}, False),
        ({}, False),
    ),
)
def test_several_processes_as_one_run_are_refused(tmp_path, monkeypatch, variables, refused):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not refused:
        refuse_several_processes("train")
        return
    with pytest.raises(SpecpolicyError, match="torchrun"), claim(tmp_path / "run", "train"):
        pytest.fail("began")
    assert not (tmp_path / "run").exists()


# -- disks that are full ----------------------------------------------------------------------------------------------


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["values"] = np.random.default_rng(0).normal(size=40_000)


WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": lambda path: torch.save({"weights": torch.randn(40_000)}, path),
    "safetensors": lambda path: save_file({"weights": torch.randn(40_000)}, path),
    "hdf5": write_hdf5,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, writer):
    path = tmp_path / "file.bin"
    path.write_text("before")
    with pytest.raises(SpecpolicyError) as caught, full_disk(), atomic_path(path) as temporary:
        WRITERS[writer](temporary)
    words = str(caught.value)
    assert words.startswith(f"{path} cannot be written: ") and "\n" not in words
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO))
def test_whatever_the_system_says_against_writing_is_one_line(tmp_path, monkeypatch, number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(SpecpolicyError, match=rf"table\.md cannot be written: {os.strerror(number)}"):
        write_text(tmp_path / "table.md", "text")
    monkeypatch.setattr(os, "write", refuse)
    with (
        pytest.raises(SpecpolicyError, match=f"run cannot be written: {os.strerror(number)}"),
        claim(tmp_path / "run", "train"),
    ):
        pytest.fail("began")
    assert not list(tmp_path.iterdir())


def test_other_errors_are_not_called_those_of_a_disk():
    for error in (ValueError("3 is no 4"), RuntimeError("shapes"), OSError("no number")):
        assert failure_to_write(error) is None
        with pytest.raises(type(error)), writing("x"):
            raise error
    with pytest.raises(SpecpolicyError, match="as it is"), writing("x"):
        raise SpecpolicyError("as it is")


# -- what is deleted --------------------------------------------------------------------------------------------------


def test_only_what_is_named_is_deleted(tmp_path):
    output, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for name in ("config.yaml", "notes.txt", "videos/a-1.mp4", "videos/mine.mp4", "films/a-1.mp4", "sub/config.yaml"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).touch()
    elsewhere.mkdir()
    for name in ("a-1.mp4", "weights"):
        (elsewhere / name).touch()
    (output / "linked").symlink_to(elsewhere)
    (output / "weights").symlink_to(elsewhere / "weights")
    (output / "broken").symlink_to(elsewhere / "nothing")
    names = [
        "config.yaml",
        "videos/*-[0-9]*.mp4",
        "films/*-[0-9]*.mp4",
        "linked/*-[0-9]*.mp4",
        "weights",
        "broken",
        "x",
    ]
    assert len(matching(output, names)) == 5
    remove(output, names)
    left = {str(path.relative_to(output)) for path in output.rglob("*")}
    assert left == {"notes.txt", "videos", "videos/mine.mp4", "sub", "sub/config.yaml", "linked"}
    assert {path.name for path in elsewhere.iterdir()} == {"a-1.mp4", "weights"}


def test_a_directory_in_place_of_a_file_stops_the_deletion_before_it_begins(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "config.yaml" / "deep").mkdir(parents=True)
    with pytest.raises(SpecpolicyError, match=r"config\.yaml is a directory"):
        remove(tmp_path, ["a.csv", "config.yaml"])
    assert (tmp_path / "a.csv").exists()


def test_what_a_killed_run_left_half_written_is_deleted(tmp_path):
    with contextlib.suppress(KeyError), atomic_path(tmp_path / "training.pt") as temporary:
        os.link(temporary, tmp_path / "kept")  # as if nobody had removed it
        name = temporary.name
        raise KeyError
    os.rename(tmp_path / "kept", tmp_path / name)
    (tmp_path / ".training-notes.pt").touch()
    remove_temporary(tmp_path, ["training.pt", "attempt_*.hdf5"])
    assert [path.name for path in tmp_path.iterdir()] == [".training-notes.pt"]


# -- names ------------------------------------------------------------------------------------------------------------


def test_other_policies_have_other_default_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [
        "epoch=0550-test_mean_score=0.950.ckpt",
        "epoch=0550-test_mean_score=0.969.ckpt",
        "epoch_0550-test_mean_score_0.969.ckpt",
        "a/pretrained_model/",
        "b/pretrained_model/",
        "a/pretrained.model/",
        "lift",
        "LIFT",
    ]
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if place.endswith("/") else path.touch()
    names = [default_name(place) for place in [*places, "ws://a:8000", "ws://b:8000", "expert"]]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(name == file_name(name) and not name.startswith(".") for name in names)
    assert default_name(tmp_path / "a" / ".." / "lift") == default_name("./lift") == names[6]  # the same place
    assert names[6].startswith("lift-") and names[1].startswith("epoch_0550-test_mean_score_0.969")


@settings(max_examples=200, derandomize=True)
@given(st.text(min_size=1), st.text(min_size=1))
def test_other_labels_have_other_file_names(first, second):
    names = file_name(first), file_name(second)
    assert (names[0] == names[1]) == (first == second)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") for name in names)


def test_the_first_difference_is_named():
    old = {"a": 1, "b": {"c": [1], "d": None}}
    assert first_difference(old, {"b": {"d": None, "c": [1]}, "a": 1}) is None
    assert first_difference(old, {"a": 1, "b": {"c": [2], "d": None}}) == ("b.c", "[1]", "[2]")
    assert first_difference(old, {"a": 1, "b": {"c": [1], "d": None, "e": 0}}) == ("b.e", "None", "0")
    assert first_difference(old, {"b": {"c": [1], "d": None}}) == ("a", "1", "None")
    name, shown, _ = first_difference({"a": list(range(1000))}, {"a": []})
    assert name == "a" and len(shown) == 60


@pytest.mark.parametrize("leads_to", ["itself", "nothing/at/all"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, leads_to):
    (tmp_path / "itself").symlink_to(tmp_path / leads_to)
    with (
        pytest.raises(SpecpolicyError, match="itself is a link that leads nowhere"),
        claim(tmp_path / "itself", "train"),
    ):
        pass
    with pytest.raises(SpecpolicyError, match="cannot be written"), claim(tmp_path / "itself" / "below", "train"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["itself"]
    assert default_name(tmp_path / "itself")


def test_a_home_that_is_a_link_is_no_output(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home", "real"):
        with pytest.raises(SpecpolicyError, match="all you have"), claim(tmp_path / name, "train"):
            pass
