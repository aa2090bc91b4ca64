"""The loop against literal transcriptions of the published samplers: as many network calls, on average."""

import pytest
import torch
from mixtures import MixtureDenoiser
from policies import AtObservation, lift
from reference import autospeculative_decoding, block_verification_with_free_drafter

from specpolicy import GaussianChain, make_sampler, sample

PAPERS = {"asd": autospeculative_decoding, "block": block_verification_with_free_drafter}


def mean_calls(name, denoiser, chain, shape, few, many):
    """(of `few` chunks of the transcription, of `many` of the sampler, standard error of their difference)."""
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        runs = [PAPERS[name](denoiser, chain, torch.randn(shape, generator=generator), generator) for _ in range(few)]
    slow = torch.tensor([calls for _, calls in runs]).double()
    fast = sample(denoiser, chain, (many, *shape), sampler=make_sampler(name), generator=generator).stats.calls.double()
    error = float((slow.var() / few + fast.var() / many).sqrt())
    return float(slow.mean()), float(fast.mean()), error


def check(slow, fast, error):
    assert fast == pytest.approx(slow, rel=0.1)
    # The same algorithm has the same mean: no systematic difference, four standard errors.
    assert abs(fast - slow) < 4 * error, (slow, fast, error)


@pytest.mark.parametrize("name", PAPERS)
def test_mean_calls_on_a_mixture(name):
    chain = GaussianChain.ddpm(40)
    check(*mean_calls(name, MixtureDenoiser(chain.process), chain, (2, 2), few=150, many=2000))


@pytest.mark.parametrize("name", PAPERS)
def test_mean_calls_on_a_trained_policy(name):
    chain = lift()[0].chain.strided(16)
    check(*mean_calls(name, AtObservation(1), chain, lift()[0].sample_shape, few=24, many=48))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("observation", (0, 3))
def test_mean_calls_on_the_whole_chain_of_a_trained_policy(name, observation):
    policy = lift()[0]
    check(*mean_calls(name, AtObservation(observation), policy.chain, policy.sample_shape, few=40, many=40))
