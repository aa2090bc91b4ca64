"""Number formats: another one is refused, and one that the machine only emulates is said to be slow."""

import warnings

import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.precision import check_precision, computes_in_bfloat16

CPU = torch.device("cpu")


@pytest.fixture(params=(False, True), ids=("emulated", "native"))
def native(request, monkeypatch):
    monkeypatch.setattr("specpolicy.precision.computes_in_bfloat16", lambda device: request.param)
    return request.param


def warned(precision):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        check_precision(precision, CPU)
    return [str(warning.message) for warning in found]


def test_an_emulated_format_is_said_to_be_slow(native):
    assert warned("float32") == []
    assert len(warned("bfloat16")) == (0 if native else 1)
    assert native or "precision=float32 is several times as fast" in warned("bfloat16")[0]


def test_other_formats_are_refused():
    with pytest.raises(SpecpolicyError, match="'float8': use one of float32, bfloat16"):
        check_precision("float8", CPU)


def test_the_processor_is_asked():
    """AVX2 alone computes nothing in bfloat16; the other way round, instructions are there to be used."""
    found = computes_in_bfloat16(CPU)
    assert isinstance(found, bool)
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        assert found
    elif torch.backends.cpu.get_cpu_capability() == "AVX2":
        assert not found
