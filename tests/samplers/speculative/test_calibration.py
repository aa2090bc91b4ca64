"""Calibration saves calls and changes nothing else."""

import dataclasses

import pytest
import torch
from distribution_tests import innovation_p, innovations
from mixtures import conditional_mixture
from safetensors.torch import load_file, save_file

from specpolicy import Calibration, GaussianChain, SpecpolicyError, calibrate, make_sampler, sample
from specpolicy.engines.base import Engine, Workload
from specpolicy.samplers.recycled.calibration import Distillation, Effort
from specpolicy.samplers.recycled.calibration.calibration import Plan
from specpolicy.samplers.recycled.surrogates import StudentSurrogate

EFFORT = Effort(
    chains=200,
    repeated=8,
    repeats=4,
    invented=100,
    scattered=4,
    rounds=100,
    passes=(Distillation(200, batch=128), Distillation(100, batch=128)),
    tests=32,
    steps=(5,),
    options={"hidden": 64, "observation": 64},
)
CHAIN = GaussianChain.ddpm(train_steps=20)


@pytest.fixture(scope="module")
def problem():
    """A denoiser, conditions and a calibration of it."""
    denoiser, cond = conditional_mixture(CHAIN.process)
    torch.manual_seed(0)
    return denoiser, cond, calibrate(denoiser, CHAIN, (2, 2), cond, torch.Generator().manual_seed(1), EFFORT)


def calls(denoiser, cond, sampler):
    """Mean calls of a batch."""
    generator = torch.Generator().manual_seed(2)
    out = sample(denoiser, CHAIN, (300, 2, 2), cond.repeat(5, 1), sampler, generator)
    return out.stats.calls.double().mean().item()


def test_a_student_saves_calls_and_a_prior_saves_some(problem):
    denoiser, cond, calibration = problem
    student = calls(denoiser, cond, make_sampler("recycled", calibration=calibration, window=None))
    prior = calls(denoiser, cond, make_sampler("recycled", calibration=calibration, window=None, student=False))
    nothing = calls(denoiser, cond, make_sampler("recycled"))
    assert student < 0.9 * prior < 0.9 * nothing


@pytest.mark.parametrize("options", ({}, {"student": False}, {"window": None, "sweeps": 2}), ids=str)
def test_a_calibrated_sampler_has_the_distribution_of_the_chain(problem, options):
    """The noises that its states imply are independent standard normals; false alarm 1e-4 each."""
    denoiser, cond, calibration = problem
    sampler, cond = make_sampler("recycled", calibration=calibration, **options), cond.repeat(16, 1)
    generator = torch.Generator().manual_seed(5)
    out = sample(denoiser, CHAIN, (len(cond), 2, 2), cond, sampler, generator, return_states=True)
    assert out.stats.rejections.sum() > 300
    assert innovation_p(*innovations(denoiser, CHAIN, out.states, cond)) > 1e-4


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16, torch.int64))
def test_conditions_may_have_another_number_format(problem, dtype):
    _, cond, calibration = problem
    sampler = make_sampler("recycled", calibration=calibration)
    for batch in (1, 2):
        own = cond[:batch].to(dtype)
        out = sample(lambda x, t, c: x / 2 + 0 * c.float().sum(), CHAIN, (batch, 2, 2), own, sampler)
        assert out.actions.shape == (batch, 2, 2)


def test_a_calibration_comes_back_from_its_files(problem, tmp_path):
    denoiser, cond, calibration = problem
    calibration.save(tmp_path)
    loaded = Calibration.load(tmp_path)
    assert (loaded.sweeps, loaded.plans, loaded.report) == (
        calibration.sweeps,
        calibration.plans,
        calibration.report,
    )
    # Half precision on disk moves the drafts a little, never the distribution.
    before = calls(denoiser, cond, make_sampler("recycled", calibration=calibration))
    assert calls(denoiser, cond, make_sampler("recycled", calibration=loaded)) == pytest.approx(before, rel=0.1)


def test_calibrated_plans_are_used(problem):
    denoiser, cond, calibration = problem
    narrow = dataclasses.replace(calibration, plans={"cpu": {20: Plan([1] * 20, 1, True, 15.0, 0.1)}})
    sampler = make_sampler("recycled", calibration=narrow)
    out = sample(denoiser, CHAIN, (4, 2, 2), cond[:4], sampler, torch.Generator().manual_seed(2))
    assert max(int(number.max()) for number in out.stats.accepted) == 1
    assert sorted(calibration.plans["cpu"]) == [5, 20]
    assert all(1 <= width <= 20 for width in calibration.plans["cpu"][20].windows)


def test_plans_are_made_anew_without_learning(problem):
    denoiser, cond, calibration = problem
    known = dataclasses.replace(calibration, plans={}, report={}, sweeps=7)  # as no search would choose
    again = calibrate(denoiser, CHAIN, (2, 2), cond, torch.Generator().manual_seed(4), EFFORT, known=known)
    assert again.student is calibration.student and sorted(again.plans["cpu"]) == [5, 20]
    assert again.sweeps == 7


def test_plans_without_a_student_use_the_prior(problem):
    denoiser, cond, calibration = problem
    known = dataclasses.replace(calibration, plans={}, report={}, student=None)
    again = calibrate(denoiser, CHAIN, (2, 2), cond, torch.Generator().manual_seed(4), EFFORT, known=known)
    assert not any(plan.student for plan in again.plans["cpu"].values())
    tried = again.report["cpu"]["chain_20"]["tried"]
    assert all("prior" in line for line in tried) and len({line.split(":")[0] for line in tried}) == len(tried)


def test_what_was_stored_once_stays_the_same_to_the_bit(problem, tmp_path):
    """Plans are made anew again and again, and each time the student is written, too."""
    _, _, calibration = problem
    student = StudentSurrogate(calibration.prior.alpha_bar, (2, 2), 4, width=4, context=2, hidden=4, observation=128)
    dataclasses.replace(calibration, student=student).save(tmp_path / "one")
    Calibration.load(tmp_path / "one").save(tmp_path / "two")
    one, two = ((tmp_path / name / "speculation.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    stored = load_file(tmp_path / "one/speculation.safetensors")
    small = {name for name, value in stored.items() if value.dtype == torch.int8}
    assert small and all(name.startswith("student.observation") for name in small)


def test_directions_in_an_older_file_are_ignored(problem, tmp_path):
    """Calibrations used to hold some, for extra rows that no sampler evaluates any more."""
    _, _, calibration = problem
    calibration.save(tmp_path)
    weights = load_file(tmp_path / "speculation.safetensors")
    save_file({**weights, "directions": torch.eye(4)[:2].half()}, tmp_path / "speculation.safetensors")
    loaded = Calibration.load(tmp_path)
    loaded.save(tmp_path / "again")
    assert load_file(tmp_path / "again" / "speculation.safetensors").keys() == weights.keys()


def test_a_calibration_of_another_policy_is_refused(problem):
    denoiser, cond, calibration = problem
    sampler = make_sampler("recycled", calibration=calibration)
    with pytest.raises(SpecpolicyError, match=r"shape \(2, 2\)"):
        sample(denoiser, CHAIN, (1, 4, 2), None, sampler)
    with pytest.raises(SpecpolicyError, match="20 training steps"):
        sample(denoiser, GaussianChain.ddpm(train_steps=30), (1, 2, 2), cond[:1], sampler)


def test_conditions_of_another_size_are_refused(problem):
    _, cond, calibration = problem
    for student in (True, False):
        sampler = make_sampler("recycled", calibration=calibration, student=student)
        for wrong, told in ((cond[:1, :3], "cond has 3"), (None, "cond has 0")):
            with pytest.raises(SpecpolicyError, match=f"conditions of 4 numbers, {told}"):
                sample(lambda x, t, c: x, CHAIN, (1, 2, 2), wrong, sampler)


def test_a_calibration_is_shared_and_never_moved(problem):
    """Samplers of two number formats use one calibration, which can still be trained afterwards."""
    denoiser, cond, calibration = problem
    sampler = make_sampler("recycled", calibration=calibration)
    for dtype in (torch.float64, torch.float32, torch.float64):
        out = sample(denoiser, CHAIN, (1, 2, 2), cond[:1].to(dtype), sampler, dtype=dtype)
        assert out.actions.dtype == dtype
    for surrogate in (calibration.prior, calibration.student):
        assert surrogate.basis.dtype == torch.float32
        assert not any(part.is_inference() for part in (*surrogate.parameters(), *surrogate.buffers()))
    student = calibration.student
    guess = student(torch.randn(3, 4), torch.tensor([0, 5, 19]), student.prepare(cond[:3]))
    guess.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in student.parameters())
    student.zero_grad()


class Steam(Engine):
    """An engine that calls the denoiser."""

    name = "steam"

    def __call__(self, x, t, cond):
        return self.workload.denoiser(x, t, cond)


def test_a_plan_is_taken_for_the_engine_that_runs_the_network(problem):
    denoiser, cond, calibration = problem
    plans = {name: {20: Plan([window] * 20, 1, True, 0.0, 0.0)} for name, window in (("cpu", 4), ("cpu-steam", 2))}
    sampler = make_sampler("recycled", calibration=dataclasses.replace(calibration, plans=plans))
    for network, longest in ((denoiser, 4), (Steam(Workload(denoiser, (2, 2), (4,), 20)), 2)):
        out = sample(network, CHAIN, (8, 2, 2), cond[:8], sampler, torch.Generator().manual_seed(1))
        assert max(int(accepted.max()) for accepted in out.stats.accepted) == longest


def test_a_chain_without_noise_is_refused_before_anything_is_evaluated(problem):
    def evaluated(x, t, c):
        raise AssertionError("a network was called")

    chain = GaussianChain.ddpm(100).with_ddim(10, eta=0.0)
    with pytest.raises(SpecpolicyError, match="adds no noise"):
        calibrate(evaluated, chain, (2, 2), problem[1])


def test_too_few_conditions_are_refused(problem):
    denoiser, cond, _ = problem
    with pytest.raises(SpecpolicyError, match="5 conditions"):
        calibrate(denoiser, CHAIN, (2, 2), cond[:5])
    with pytest.raises(SpecpolicyError, match=r"shape=\(1, 2, 2\): expected \(H, D\), whole numbers"):
        calibrate(denoiser, CHAIN, (1, 2, 2), cond)


@pytest.mark.parametrize("damage", ("truncate", "remove", "json"))
def test_a_damaged_calibration_says_so(problem, tmp_path, damage):
    problem[2].save(tmp_path)
    weights = tmp_path / "speculation.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "remove":
        weights.unlink()
    else:
        (tmp_path / "speculation.json").write_text("{")
    with pytest.raises(SpecpolicyError, match="calibrate"):
        Calibration.load(tmp_path)
