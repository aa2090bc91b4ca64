"""A flow calibrated like a diffusion: its first level is pure noise, where nothing may divide by the signal."""

import pytest
import torch
from distribution_tests import innovation_p, innovations
from mixtures import MixtureVelocity
from test_calibration import EFFORT

from specpolicy import Calibration, GaussianChain, SpecpolicyError, calibrate, flow_denoiser, make_sampler, sample

CHAIN = GaussianChain.from_flow(20)


@pytest.fixture(scope="module")
def problem():
    """A denoiser, conditions and a calibration of it."""
    velocity = MixtureVelocity(CHAIN.process)
    denoiser = flow_denoiser(lambda x, t, cond: velocity(x, t, cond.view(-1, 2, 2)), CHAIN)
    cond = 0.2 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return denoiser, cond, calibrate(denoiser, CHAIN, (2, 2), cond, torch.Generator().manual_seed(1), EFFORT)


@torch.inference_mode()
def test_surrogates_are_finite_at_every_level(problem):
    _, cond, calibration = problem
    states = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(0))
    for surrogate in (calibration.prior, calibration.student):
        guess = surrogate.at(surrogate.look_up(CHAIN.timesteps), surrogate.prepare(cond[:1]))(states)
        assert bool(guess.isfinite().all()) and float(guess.abs().max()) < 5


def test_a_student_saves_calls_and_comes_back_from_its_files(problem, tmp_path):
    denoiser, cond, calibration = problem
    calibration.save(tmp_path)
    loaded = Calibration.load(tmp_path)

    def calls(**options):
        generator = torch.Generator().manual_seed(2)
        sampler = make_sampler("recycled", **options)
        return float(
            sample(denoiser, CHAIN, (300, 2, 2), cond.repeat(5, 1), sampler, generator).stats.calls.double().mean()
        )

    student = calls(calibration=calibration, window=None)
    assert student < 0.9 * calls(window=None)
    assert calls(calibration=loaded, window=None) == pytest.approx(student, rel=0.1)


@pytest.mark.parametrize("steps", (None, 10, 5))
def test_a_calibrated_sampler_has_the_distribution_of_the_ancestral_chain(problem, steps):
    """The noises that its states imply are independent standard normals; false alarm 1e-4 each."""
    denoiser, cond, calibration = problem
    sampler, cond = make_sampler("recycled", calibration=calibration, steps=steps), cond.repeat(16, 1)
    generator = torch.Generator().manual_seed(5)
    out = sample(denoiser, CHAIN, (len(cond), 2, 2), cond, sampler, generator, return_states=True)
    assert out.stats.rejections.sum() > 200
    noises, directions = innovations(denoiser, sampler.target(CHAIN), out.states, cond)
    assert innovation_p(noises, directions) > 1e-4
    assert innovation_p(1.05 * noises, directions) < 1e-4  # the control: a twentieth too much noise


def test_a_bare_velocity_is_not_calibrated():
    with pytest.raises(SpecpolicyError, match="give flow_denoiser"):
        calibrate(lambda x, t, cond: x, CHAIN, (2, 2))
