"""Recorded observations on disk."""

import numpy as np
import pytest

from specpolicy.errors import SpecpolicyError
from specpolicy.policy.histories import read_histories, write_histories


def recorded(count=4):
    source = np.random.default_rng(0)
    sizes = {"position": 2, "object": 3}
    return {key: source.normal(size=(count, 2, size)).astype(np.float32) for key, size in sizes.items()}


def test_they_are_read_as_they_were_written(small_policy, tmp_path):
    histories = recorded()
    write_histories(tmp_path / "seen.safetensors", {**histories, "unused": histories["object"]})
    found = read_histories(tmp_path / "seen.safetensors", small_policy)
    assert set(found) == {"position", "object"}
    assert all(np.array_equal(found[key], histories[key]) for key in found)


@pytest.mark.parametrize(
    ("histories", "words"),
    [
        ({"position": recorded()["position"]}, "has no 'object': it was recorded for another policy"),
        (recorded(0), "holds no observations"),
        ({**recorded(), "object": recorded(3)["object"]}, "not as many of each key"),
    ],
)
def test_what_does_not_fit_is_said(small_policy, tmp_path, histories, words):
    write_histories(tmp_path / "seen.safetensors", histories)
    with pytest.raises(SpecpolicyError, match=words):
        read_histories(tmp_path / "seen.safetensors", small_policy)


def test_missing_and_damaged_files(small_policy, tmp_path):
    with pytest.raises(SpecpolicyError, match=r"no recorded observations at .*`specpolicy calibrate` writes them"):
        read_histories(tmp_path / "none.safetensors", small_policy)
    path = tmp_path / "seen.safetensors"
    write_histories(path, recorded())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SpecpolicyError, match="cannot be read"):
        read_histories(path, small_policy)
