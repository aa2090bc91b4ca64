"""Samplers by name."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from specpolicy import calibrate, load_policy, samplers
from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers import Setting, sample
from specpolicy.samplers.registry import SAMPLERS


def test_a_number_behind_a_name_is_its_steps():
    assert make_sampler("ddim-4") == make_sampler("ddim", steps=4)
    assert make_sampler("recycled-16", window=8) == make_sampler("recycled", steps=16, window=8)
    assert make_sampler("dpm_solver-7").steps == 7


def test_a_sampler_is_a_class_of_its_options_which_is_public():
    for kind in SAMPLERS.values():
        assert getattr(samplers, kind.__name__) is kind and kind.__name__ in samplers.__all__
    assert samplers.Recycled(window=16) == make_sampler("recycled", window=16)


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
        ({"rejoin": "often"}, "True or False"),
        ({"rejoin": 3}, "True or False"),
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


@pytest.mark.parametrize(
    "name, options, message",
    (
        ("block", {"drafter": "fre"}, "unknown drafter 'fre': use one of frozen_root"),
        ("recycled", {"student": "no"}, "'student' of sampler 'recycled' must be True or False"),
        ("picard", {"tolerance": -1}, "'tolerance' of sampler 'picard' must be zero or positive"),
        ("picard", {"tolerance": "0.1"}, "must be zero or positive"),
        ("ddim", {"eta": True}, "must be zero or positive"),
    ),
)
def test_values_that_options_cannot_have(name, options, message):
    with pytest.raises(SpecpolicyError, match=message):
        make_sampler(name, **options)


@pytest.mark.parametrize("sampler", ("ddpm", "ddim-4", "dpm_solver-4", "picard", "asd", "block", "recycled"))
@pytest.mark.parametrize(
    "output", (lambda x: x[..., :1], lambda x: (x,), lambda x: x[:1]), ids=("thin", "tuple", "one")
)
def test_a_network_whose_output_has_another_shape_is_refused(sampler, output):
    """One number for several would be broadcast, and another distribution drawn from."""
    with pytest.raises(SpecpolicyError, match=r"the denoiser returned (shape|tuple)"):
        sample(lambda x, t, c: output(x), GaussianChain.ddpm(10), (2, 3, 2), sampler=sampler)


@pytest.mark.parametrize(
    "changed, message",
    (
        ({"generator": 0}, r"generator=0: give a torch\.Generator"),
        ({"generator": [1, 2]}, r"generator=\[1, 2\]"),
        ({"chain": DDPMScheduler(10)}, r"chain is a DDPMScheduler: .* GaussianChain\.from_diffusers"),
        ({"cond": np.zeros((1, 3))}, "cond is a ndarray"),
        ({"sampler": {"name": "ddim"}}, "give a name, or what"),
        ({"device": "abacus"}, "device=abacus cannot be used here"),
        ({"device": 3.5}, r"device=3\.5 cannot be used here"),
        ({"shape": 5}, r"shape=5: expected \(B, H, D\)"),
        ({"shape": (2.0, 3, 2)}, r"expected \(B, H, D\), whole numbers"),
        ({"shape": (1, 0, 2)}, r"expected \(B, H, D\)"),
        ({"shape": (3, 2)}, r"expected \(B, H, D\)"),
        ({"cond": torch.tensor(1.0)}, "cond is a tensor without rows"),
    ),
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_arguments_of_another_kind_are_refused(changed, message):
    usual = {"chain": GaussianChain.ddpm(10), "shape": (2, 3, 2)}
    with pytest.raises(SpecpolicyError, match=message):
        sample(lambda x, t, c: x, **{**usual, **changed})


@pytest.mark.parametrize(
    "call, message",
    (
        (lambda: sample(None, GaussianChain.ddpm(10), (1, 3, 2)), "denoiser is a NoneType"),
        (lambda: make_sampler(5), "sampler=5: give a name"),
        (lambda: GaussianChain.from_diffusers(None), "NoneType is no scheduler of diffusers"),
        (lambda: GaussianChain.ddpm(steps=0), "steps=0: expected a whole number, 1 or more"),
        (lambda: GaussianChain.ddpm(steps=True), "steps=True"),
        (lambda: GaussianChain.ddpm(offset=1.5), r"offset=1\.5"),
        (lambda: load_policy(None), "path=None: give the path"),
        (lambda: calibrate(lambda x, t, c: x, GaussianChain.ddpm(10), (3,)), r"shape=\(3,\): expected \(H, D\)"),
        (lambda: calibrate(lambda x, t, c: x, GaussianChain.ddpm(10), (3, 2), generator=0), "generator is a int"),
    ),
)
def test_other_doors_refuse_them_too(call, message):
    with pytest.raises(SpecpolicyError, match=message):
        call()


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("sampler", ("ddpm", "ddim-4", "dpm_solver-4", "picard", "asd", "residual", "recycled"))
def test_an_infinite_output_is_refused_although_clipping_would_hide_it(sampler, batch):
    def network(x, t, cond):
        return torch.where(t.view(-1, 1, 1) < 5, torch.inf, x)

    with pytest.raises(SpecpolicyError, match="not finite"):
        sample(network, GaussianChain.ddpm(10, prediction="sample", clip=1.0), (batch, 3, 2), sampler=sampler)


def test_windows_fit_the_machine_unless_they_are_given():
    """Rows are dear on a CPU, so that a round drafts sixteen steps there, and to the end elsewhere."""
    chain = GaussianChain.from_diffusers(DDPMScheduler(40, beta_schedule="squaredcos_cap_v2"))
    here = Setting(Model(lambda x, t, cond: x), chain, torch.Size((2, 1)))
    there = Setting(Model(lambda x, t, cond: x, torch.device("meta")), chain, torch.Size((2, 1)))
    for name in ("asd", "block", "reflection", "residual"):
        assert make_sampler(name).bind(here).window == 16 and make_sampler(name).bind(there).window is None
        assert make_sampler(name, window=None).bind(here).window is None
        assert make_sampler(name, window=7).bind(there).window == 7
