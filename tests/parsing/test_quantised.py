"""Quantised matrices: close to what they were, the same for good once quantised, and read only as what is expected."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing.quantised import LEAST, SCALE, quantised, read_quantised

WIDTH = 128
ROWS = LEAST // WIDTH


def matrix(seed, magnitude=1.0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(ROWS, WIDTH, generator=generator) * magnitude
    rows[seed % ROWS] = 0
    return rows


def read(place, tensors):
    save_file(tensors, place / "x.safetensors")
    return read_quantised(place / "x.safetensors", {"weight": torch.empty(ROWS, WIDTH, device="meta")})["weight"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), exponent=st.integers(-100, 100))
def test_what_was_quantised_is_close_and_then_stays(tmp_path_factory, seed, exponent):
    place, value = tmp_path_factory.mktemp("quantised"), matrix(seed, 2.0**exponent)
    stored = quantised("weight", value)
    found = read(place, stored)
    largest = value.abs().amax(dim=1, keepdim=True)
    assert ((found - value).abs() <= largest * (0.5 / 127 + 2**-9)).all()  # half a byte, and the scale's rounding
    again = quantised("weight", found)
    assert all(torch.equal(again[name], stored[name]) for name in stored)
    assert torch.equal(read(place, again), found)


def test_a_file_of_quantised_matrices_is_half_as_large(tmp_path):
    value = matrix(0)
    save_file({"weight": value.half()}, tmp_path / "half")
    save_file(quantised("weight", value), tmp_path / "quantised")
    assert (tmp_path / "quantised").stat().st_size < 0.55 * (tmp_path / "half").stat().st_size


@pytest.mark.parametrize("value", (torch.randn(8, 8), torch.randn(LEAST), torch.ones(ROWS, WIDTH, dtype=torch.int64)))
def test_small_and_other_tensors_are_not_quantised(value):
    stored = quantised("weight", value)
    assert stored.keys() == {"weight"}
    assert stored["weight"].dtype == (torch.float16 if value.is_floating_point() else value.dtype)


def test_matrices_that_are_not_quantised_are_read_as_before(tmp_path):
    value = matrix(0).half()
    assert torch.equal(read(tmp_path, {"weight": value}), value.float())


@pytest.mark.parametrize(
    ("change", "words"),
    (
        (lambda stored: stored.pop("weight" + SCALE), "weight.scale is missing"),
        (lambda stored: stored.update({"weight" + SCALE: torch.ones(3)}), r"weight.scale has shape \(3,\)"),
        (lambda stored: stored.update({"weight": stored["weight"][:3]}), r"weight has shape \(3, 128\)"),
        (lambda stored: stored.update({"weight": stored["weight"].short()}), "weight.scale has no place"),
        (lambda stored: stored.update({"weight": matrix(0)}), "weight.scale has no place"),
    ),
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    stored = quantised("weight", matrix(0))
    change(stored)
    with pytest.raises(SpecpolicyError, match=words):
        read(tmp_path, stored)


def test_only_matrices_may_be_quantised(tmp_path):
    save_file({"bias": torch.ones(4, dtype=torch.int8), "bias" + SCALE: torch.ones(4)}, tmp_path / "x.safetensors")
    with pytest.raises(SpecpolicyError, match=r"bias\.scale has no place"):
        read_quantised(tmp_path / "x.safetensors", {"bias": torch.empty(4, device="meta")})
