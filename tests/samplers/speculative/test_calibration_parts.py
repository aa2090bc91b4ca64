"""The pieces a calibration is made with, against brute force."""

import torch
from mixtures import conditional_mixture

from specpolicy import GaussianChain
from specpolicy.samplers import NoiseSource
from specpolicy.samplers.recycled.calibration.distil import fit_prior
from specpolicy.samplers.recycled.calibration.recording import (
    Recording,
    invent,
    record_rounds,
    record_scattered,
    record_sequential,
)
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate

CHAIN = GaussianChain.ddpm(train_steps=20)


def test_invented_conditions_lie_among_those_given():
    """What is the same in all conditions stays so, and what depends on each other still does."""
    free = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    cond = torch.cat([free, free[:, :1] - 3 * free[:, 1:], torch.full((200, 1), 7.0)], dim=1)
    found = invent(cond, 1000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found[:, 2], found[:, 0] - 3 * found[:, 1])
    torch.testing.assert_close(found[:, 3], torch.full((1000,), 7.0))
    assert (torch.cdist(found, cond).amin(dim=1) > 1e-3).float().mean() > 0.9
    assert 0.8 < float(found[:, :2].std() / free.std()) < 1.6


def test_a_few_steps_are_evaluated_at_each_condition():
    denoiser, cond = conditional_mixture(CHAIN.process)
    cond, generator = cond.repeat(8, 1), torch.Generator().manual_seed(0)

    def noise(batch):
        return NoiseSource(generator, batch, torch.device("cpu"), torch.float32)

    found = record_scattered(denoiser, CHAIN, torch.Size((2, 2)), cond, noise, generator, 4)
    assert found.condition.bincount().tolist() == [4] * len(cond)
    assert found.steps.view(-1, 4)[:, 0].tolist() == [0] * len(cond)  # the noisiest is always among them
    assert (found.steps.view(-1, 4).diff(dim=1) > 0).all() and len(found.steps.unique()) > 8
    states = found.states.view(-1, 2, 2)
    output = denoiser(states, found.timesteps, cond[found.condition])
    torch.testing.assert_close(found.timesteps, CHAIN.timesteps[found.steps])
    torch.testing.assert_close(found.x0, CHAIN.x0(output, states, found.steps).flatten(1))


def test_recorded_evaluations_are_those_of_the_network():
    denoiser, cond = conditional_mixture(CHAIN.process)

    def noise(batch):
        return NoiseSource(torch.Generator().manual_seed(3), batch, torch.device("cpu"), torch.float32)

    chosen, shape = torch.tensor([3, 3, 7, 9]), torch.Size((2, 2))
    sequential = record_sequential(denoiser, CHAIN, shape, cond, chosen, noise)
    assert len(sequential) == 4 * 20 and len(sequential.pairs()) == 0
    drafter = Recording(GaussianSurrogate.smooth(CHAIN.process.alpha_bar, shape))
    rounds = record_rounds(denoiser, CHAIN, shape, cond, chosen, noise, drafter)
    pairs = rounds.pairs()
    assert len(pairs) > 20
    assert torch.equal(rounds.chain[pairs], rounds.chain[pairs + 1])
    assert torch.equal(rounds.steps[pairs], rounds.steps[pairs + 1])
    # A state that a path rejoined is on record once.
    assert not (rounds.states[pairs] == rounds.states[pairs + 1]).all(dim=1).any()
    assert sorted(set(rounds.chain.tolist())) == [0, 1, 2, 3]
    for record in (sequential, rounds):
        assert set(record.condition.tolist()) == {3, 7, 9}
        states = record.states.view(-1, 2, 2)
        output = denoiser(states, CHAIN.timesteps[record.steps], cond[record.condition])
        torch.testing.assert_close(CHAIN.x0(output, states, record.steps).flatten(1), record.x0)


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
