"""Samplers by name."""

import pytest
import torch

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers import make_sampler, sample


def test_a_number_behind_a_name_is_its_steps():
    assert make_sampler("ddim-4") == make_sampler("ddim", steps=4)
    assert make_sampler("recycled-16", window=8) == make_sampler("recycled", steps=16, window=8)
    assert make_sampler("dpm_solver-7").steps == 7


@pytest.mark.parametrize("name", ("ddmi-4", "ddim-", "ddim-four", "-4", "ddim--4"))
def test_other_names_stay_unknown(name):
    with pytest.raises(SpecpolicyError, match="unknown sampler"):
        make_sampler(name)


def test_windows_as_the_configuration_writes_them():
    assert make_sampler("recycled", window="calibrated").window == "calibrated"
    assert make_sampler("asd", window=[3, 2, 1]).window == [3, 2, 1]
    assert make_sampler("asd", window=None).window is None
    for window in ("calibrated", 0, 2.5, "none"):
        with pytest.raises(SpecpolicyError, match="option 'window' of sampler 'asd'"):
            make_sampler("asd", window=window)
    with pytest.raises(SpecpolicyError, match="option 'steps' of sampler 'ddim'"):
        make_sampler("ddim-0")


@pytest.mark.parametrize(
    "options, message",
    (
        ({"sweeps": 0}, "positive integer"),
        ({"window": True}, "positive integer"),
        ({"calibration": "checkpoints/lift"}, "no Calibration but str"),
    ),
)
def test_values_that_recycled_cannot_have(options, message):
    with pytest.raises(SpecpolicyError, match=message):
        make_sampler("recycled", **options)


def test_half_precision_states_are_refused():
    chain = GaussianChain.ddpm(10)
    with pytest.raises(SpecpolicyError, match="bfloat16"):
        sample(lambda x, t, c: x, chain, (1, 2, 2), dtype=torch.bfloat16)
