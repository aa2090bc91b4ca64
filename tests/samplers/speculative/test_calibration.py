"""Calibration: the pieces against brute force, and that it saves calls without changing anything else."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_tests import innovation_p, innovations
from mixtures import MixtureDenoiser

from specpolicy import Calibration, GaussianChain, SpecpolicyError, calibrate, make_sampler, sample
from specpolicy.engines.recorder import RowRecorder
from specpolicy.samplers import NoiseSource
from specpolicy.samplers.speculative.calibration import Distillation, Effort
from specpolicy.samplers.speculative.calibration.calibration import Plan
from specpolicy.samplers.speculative.calibration.cost import best_windows, interpolate_cost
from specpolicy.samplers.speculative.calibration.distil import fit_prior
from specpolicy.samplers.speculative.calibration.recording import (
    Recording,
    invent,
    record_levels,
    record_rounds,
    record_sequential,
)
from specpolicy.samplers.speculative.surrogates import GaussianSurrogate

EFFORT = Effort(
    chains=200,
    repeated=8,
    repeats=4,
    invented=100,
    levels=4,
    rounds=100,
    passes=(Distillation(200, batch=128), Distillation(100, batch=128)),
    tests=32,
    steps=(5,),
)
CHAIN = GaussianChain.ddpm(train_steps=20)


@pytest.fixture(scope="module")
def problem():
    """A denoiser, conditions and a calibration of it."""
    denoiser = MixtureDenoiser(CHAIN.process)
    # The first condition numbers move the mixture.
    cond = 0.2 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0))

    def conditioned(x, t, c):
        return denoiser(x, t, c.view(-1, 2, 2))

    torch.manual_seed(0)
    return conditioned, cond, calibrate(conditioned, CHAIN, (2, 2), cond, torch.Generator().manual_seed(1), EFFORT)


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


@pytest.mark.parametrize("options", ({}, {"student": False}, {"window": None, "extra_rows": True}), ids=str)
def test_a_calibrated_sampler_has_the_law_of_the_chain(problem, options):
    """The noises that its states imply are independent standard normals; false alarm 1e-4 each."""
    denoiser, cond, calibration = problem
    sampler, cond = make_sampler("recycled", calibration=calibration, **options), cond.repeat(16, 1)
    generator = torch.Generator().manual_seed(5)
    out = sample(denoiser, CHAIN, (len(cond), 2, 2), cond, sampler, generator, return_states=True)
    assert out.stats.rejections.sum() > 300
    assert innovation_p(*innovations(denoiser, CHAIN, out.states, cond)) > 1e-4


def test_invented_conditions_lie_among_those_given():
    """What is the same in all conditions stays so, and what depends on each other still does."""
    free = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    cond = torch.cat([free, free[:, :1] - 3 * free[:, 1:], torch.full((200, 1), 7.0)], dim=1)
    found = invent(cond, 1000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found[:, 2], found[:, 0] - 3 * found[:, 1])
    torch.testing.assert_close(found[:, 3], torch.full((1000,), 7.0))
    assert (torch.cdist(found, cond).amin(dim=1) > 1e-3).float().mean() > 0.9
    assert 0.8 < float(found[:, :2].std() / free.std()) < 1.6


def test_a_few_levels_are_evaluated_at_each_condition(problem):
    denoiser, cond, _ = problem
    cond, generator = cond.repeat(8, 1), torch.Generator().manual_seed(0)

    def noise(batch):
        return NoiseSource(generator, batch, torch.device("cpu"), torch.float32)

    found = record_levels(denoiser, CHAIN, torch.Size((2, 2)), cond, noise, generator, 4)
    assert found.condition.bincount().tolist() == [4] * len(cond)
    assert found.steps.view(-1, 4)[:, 0].tolist() == [0] * len(cond)  # the noisiest is always among them
    assert (found.steps.view(-1, 4).diff(dim=1) > 0).all() and len(found.steps.unique()) > 8
    path = CHAIN.path(torch.device("cpu"))
    states = found.states.view(-1, 2, 2)
    output = denoiser(states, found.timesteps, cond[found.condition])
    torch.testing.assert_close(found.timesteps, path.timesteps[found.steps])
    torch.testing.assert_close(found.x0, path.x0(output, states, found.steps).flatten(1))


def test_a_calibration_comes_back_from_its_files(problem, tmp_path):
    denoiser, cond, calibration = problem
    calibration.save(tmp_path)
    loaded = Calibration.load(tmp_path)
    assert (loaded.sweeps, loaded.plans, loaded.report) == (
        calibration.sweeps,
        calibration.plans,
        calibration.report,
    )
    # Half precision on disk moves the drafts a little, never the law.
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


def test_extra_rows_are_evaluated_and_save_calls(problem):
    denoiser, cond, calibration = problem
    few = calls(denoiser, cond, make_sampler("recycled", calibration=calibration, window=None, student=False))
    sampler = make_sampler("recycled", calibration=calibration, window=None, student=False, extra_rows=True)
    assert calls(denoiser, cond, sampler) < few
    out = sample(denoiser, CHAIN, (2, 2, 2), cond[:2], sampler, torch.Generator().manual_seed(2))
    assert int(out.stats.rows.min()) > 20 + len(calibration.directions)
    with pytest.raises(SpecpolicyError, match="calibration"):
        sample(denoiser, CHAIN, (2, 2, 2), cond[:2], make_sampler("recycled", extra_rows=True))


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


class Engine:
    """A denoiser that says it is an engine."""

    name = "steam"

    def __init__(self, denoiser):
        self.denoiser = denoiser

    def __call__(self, x, t, cond):
        return self.denoiser(x, t, cond)


def test_a_plan_is_taken_for_the_engine_that_runs_the_network(problem):
    denoiser, cond, calibration = problem
    plans = {name: {20: Plan([window] * 20, 1, True, 0.0, 0.0)} for name, window in (("cpu", 4), ("cpu-steam", 2))}
    sampler = make_sampler("recycled", calibration=dataclasses.replace(calibration, plans=plans))
    for network, longest in ((denoiser, 4), (Engine(denoiser), 2), (RowRecorder(Engine(denoiser)), 2)):
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


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.05, 0.999), min_size=1, max_size=5),
    st.lists(st.floats(0.01, 2.0), min_size=8, max_size=8),
)
def test_windows_are_the_cheapest_of_all(acceptance, increments):
    """Against the expected cost of every table of windows."""
    count = len(acceptance)
    cost = torch.tensor(increments, dtype=torch.float64).cumsum(0)

    def expected(windows):
        value = [0.0] * (count + 1)
        for step in range(count - 1, -1, -1):
            width = min(windows[step], count - 1 - step)
            total, reached = float(cost[width + 1]), 1.0
            for draft in range(width):
                total += reached * (1 - acceptance[step + draft]) * value[step + draft + 1]
                reached *= acceptance[step + draft]
            value[step] = total + reached * value[step + width + 1]
        return value[0]

    best = min(expected(windows) for windows in itertools.product(range(1, count + 1), repeat=count))
    found = best_windows(torch.tensor(acceptance, dtype=torch.float64), cost)
    assert expected(found) == pytest.approx(best)


def test_costs_between_measured_sizes_are_interpolated():
    cost = interpolate_cost({1: 2.0, 4: 5.0, 2: 3.0, 8: 4.0}, 10)
    assert cost.tolist() == pytest.approx([2, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5])


def test_the_prior_is_that_of_the_samples():
    generator = torch.Generator().manual_seed(0)
    cond = torch.randn(300, 3, generator=generator)
    weight = torch.randn(5, 3, generator=generator)
    root = torch.randn(5, 5, generator=generator) / 3
    groups = torch.arange(300).repeat_interleave(20)
    noise = torch.randn(6000, 5, generator=generator) @ root.T
    covariance, found, bias = fit_prior(cond[groups] @ weight.T + 0.5 + noise, cond[groups], groups)
    torch.testing.assert_close(found, weight.double(), atol=0.05, rtol=0)
    torch.testing.assert_close(bias, torch.full((5,), 0.5).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(covariance, (root @ root.T).double(), atol=0.05, rtol=0.05)


def test_the_gaussian_surrogate_is_exact_for_gaussian_chunks():
    process, generator = CHAIN.process, torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator) / 2
    covariance, mean = (root @ root.T).double(), torch.randn(4, generator=generator).double()
    surrogate = GaussianSurrogate(process.alpha_bar, (2, 2)).set(covariance, torch.zeros(4, 0), mean)
    states, timesteps = torch.randn(1, 6, 4, generator=generator), torch.tensor([[0, 3, 7, 11, 15, 19]])
    for index, t in enumerate(timesteps[0].tolist()):
        a = process.alpha_bar[t]
        y = states[0, index].double()
        gain = a.sqrt() * covariance @ torch.linalg.inv(a * covariance + (1 - a) * torch.eye(4))
        wanted = mean + gain @ (y - a.sqrt() * mean)
        found = surrogate.at(surrogate.look_up(timesteps), surrogate.prepare(None))(states)[0, index]
        torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=1e-3)


def test_recorded_evaluations_are_those_of_the_network(problem):
    denoiser, cond, _ = problem

    def noise(batch):
        return NoiseSource(torch.Generator().manual_seed(3), batch, torch.device("cpu"), torch.float32)

    chosen, shape = torch.tensor([3, 3, 7, 9]), torch.Size((2, 2))
    path = CHAIN.path(torch.device("cpu"))
    sequential = record_sequential(denoiser, CHAIN, shape, cond, chosen, noise)
    assert len(sequential) == 4 * 20 and len(sequential.pairs()) == 0
    drafter = Recording(GaussianSurrogate.smooth(CHAIN.process.alpha_bar, shape))
    rounds = record_rounds(denoiser, CHAIN, shape, cond, chosen, noise, drafter)
    pairs = rounds.pairs()
    assert len(pairs) > 20
    assert torch.equal(rounds.chain[pairs], rounds.chain[pairs + 1])
    assert torch.equal(rounds.steps[pairs], rounds.steps[pairs + 1])
    assert sorted(set(rounds.chain.tolist())) == [0, 1, 2, 3]
    for record in (sequential, rounds):
        assert set(record.condition.tolist()) == {3, 7, 9}
        states = record.states.view(-1, 2, 2)
        output = denoiser(states, path.timesteps[record.steps], cond[record.condition])
        torch.testing.assert_close(path.x0(output, states, record.steps).flatten(1), record.x0)
