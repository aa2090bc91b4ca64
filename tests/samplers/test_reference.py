"""The papers in code: every fast sampler draws what its reference draws, and the references are exact.

Fast samplers are met by their public names. What a reference is given to repeat a chunk is in `Repeated`, the one place
that knows in which order a fast sampler draws its numbers.
"""

import copy
import functools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from scipy import stats

from specpolicy import GaussianChain, SpecpolicyError, load_policy, make_sampler, sample
from specpolicy.samplers import NoiseSource
from specpolicy.samplers import reference as literal

SPECULATIVE = Path(__file__).parent / "speculative"
sys.path.insert(0, str(SPECULATIVE))

from distribution_tests import ChainDistribution, bonferroni, ks_normal  # noqa: E402
from mixtures import MixtureDenoiser  # noqa: E402

DOUBLE = torch.float64
FALSE_ALARMS = 1e-3  # of all tests of a distribution in this file together


# -- chunk by chunk ----------------------------------------------------------------------------------------------------


class Repeated:
    """The numbers that a fast sampler draws for one chunk from a generator with this seed: its initial noise `state`,
    then noises and uniform numbers for all steps; once, or anew in every round under block verification."""

    def __init__(self, seed, steps, shape, every_round):
        self.source = NoiseSource(torch.Generator().manual_seed(seed), 1, torch.device("cpu"), DOUBLE)
        self.steps, self.shape, self.every_round, self.rounds = steps, shape, every_round, []
        self.state = self.source.normal(*shape)[0]

    def __call__(self, round, step):
        """See `reference.Draws`."""
        round = round if self.every_round else 0
        while len(self.rounds) <= round:
            self.rounds.append((self.source.normal(self.steps, *self.shape)[0], self.source.uniform(self.steps, 2)[0]))
        noise, uniforms = self.rounds[round]
        return literal.Draw(noise[step], *uniforms[step].tolist())


def poor_denoiser(chain):
    """A draft model: another mixture."""
    return MixtureDenoiser(chain.process, spread=0.4)


# Name -> options of the fast sampler and its reference, both for a chain.
PAPERS = {
    "asd": lambda chain: ({}, literal.autospeculative_decoding),
    "reflection": lambda chain: ({}, literal.speculative_sampling),
    "reflection, independent": lambda chain: (
        {"drafter": "independent", "draft_denoiser": poor_denoiser(chain)},
        functools.partial(literal.speculative_sampling, draft_denoiser=poor_denoiser(chain)),
    ),
    "residual": lambda chain: ({}, literal.residual_speculative_sampling),
    "block": lambda chain: ({}, literal.block_verification),
}
CHAINS = {
    "16 steps": GaussianChain.ddpm(100, 16),
    "100 steps": GaussianChain.ddpm(100),
    "velocity": GaussianChain.ddpm(100, 8, prediction="v_prediction", beta_schedule="linear", spacing="trailing"),
    "noisy last step": GaussianChain.ddpm(100, 8, variance="fixed_large", offset=5, prediction="sample", clip=None),
    "DDIM": GaussianChain.ddpm(100).with_ddim(10, eta=0.7),
    "DDIM, epsilon of the clipped x0": GaussianChain.ddpm(100).with_ddim(10, eta=1.0, reuse_epsilon=False),
    "one step": GaussianChain.ddpm(100, 1),
}
CASES = [(chain, None) for chain in CHAINS] + [(chain, 3) for chain in CHAINS if chain not in ("100 steps", "one step")]
CASES += [("16 steps", 1), ("100 steps", 40)]


def compare(name, denoiser, chain, shape, conds, window):
    """Draw a chunk for each of `conds` (B, ...) in one batch, and by itself with the reference; returns its results."""
    options, reference = PAPERS[name](chain)
    sampler = make_sampler(name.partition(",")[0], window=window, **options)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(conds))]
    out = sample(denoiser, chain, (len(conds), *shape), conds, sampler, generators, return_states=True, dtype=DOUBLE)
    results = []
    for row, cond in enumerate(conds):
        draws = Repeated(row, len(chain), shape, every_round=name == "block")
        with torch.inference_mode():
            slow = reference(denoiser, chain, draws.state, cond, draws, window)
        torch.testing.assert_close(torch.stack(slow.states), out.states[:, row], rtol=0, atol=1e-9)
        torch.testing.assert_close(slow.chunk, out.actions[row], rtol=0, atol=1e-9)
        assert slow.calls == int(out.stats.calls[row])
        assert slow.accepted == [int(accepted[row]) for accepted in out.stats.accepted if accepted[row] >= 0]
        results.append(slow)
    return results


@pytest.mark.parametrize(("chain", "window"), CASES)
@pytest.mark.parametrize("name", PAPERS)
def test_the_fast_sampler_draws_the_chunk_of_the_paper_in_the_same_calls(name, chain, window):
    """Three chunks in a batch, each with a condition and numbers of its own, in float64 and to its rounding."""
    conds = 0.3 * torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)
    chain = CHAINS[chain]
    results = compare(name, MixtureDenoiser(chain.process), chain, (2, 2), conds, window)
    assert all(len(result.states) == len(chain) + 1 for result in results)
    if len(chain) >= 8 and window != 1:  # something was accepted, and something rejected
        assert sum(sum(result.accepted) for result in results) > 0
        assert sum(len(result.accepted) for result in results) > 3 * -(-len(chain) // ((window or len(chain)) + 1))


def test_without_a_condition_and_alone_it_is_the_same_chunk():
    chain = CHAINS["16 steps"]
    denoiser = MixtureDenoiser(chain.process)
    for name, paper in PAPERS.items():
        options, reference = paper(chain)
        sampler = make_sampler(name.partition(",")[0], **options)
        out = sample(denoiser, chain, (1, 2, 2), None, sampler, torch.Generator().manual_seed(7), dtype=DOUBLE)
        draws = Repeated(7, 16, (2, 2), every_round=name == "block")
        slow = reference(denoiser, chain, draws.state, None, draws)
        torch.testing.assert_close(slow.chunk, out.actions[0], rtol=0, atol=1e-9)
        assert slow.calls == int(out.stats.calls[0])


@functools.cache
def lift():
    """(network, chain, shape, conditions) of the shipped lift policy, in float64."""
    policy = load_policy(Path(__file__).parents[2] / "checkpoints" / "lift")
    recorded = [entry["observation"] for entry in json.loads((SPECULATIVE / "lift_observations.json").read_text())]
    conds = policy.encode({key: torch.tensor([one[key] for one in recorded]) for key in recorded[0]})
    return copy.deepcopy(policy.denoiser).double(), policy.chain, policy.sample_shape, conds.double()


@pytest.mark.parametrize("name", ("asd", "block"))
def test_it_does_with_a_trained_policy(name):
    network, chain, shape, conds = lift()
    compare(name, network, chain.strided(16), shape, conds[:1], window=None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("asd", "reflection", "residual", "block"))
@pytest.mark.parametrize("window", (None, 16))
def test_it_does_on_the_whole_chain_of_a_trained_policy(name, window):
    network, chain, shape, conds = lift()
    compare(name, network, chain, shape, conds, window)


@pytest.mark.parametrize("name", PAPERS)
def test_a_chain_without_noise_is_refused(name):
    chain = GaussianChain.ddpm(100).with_ddim(10, eta=0.0)
    _, reference = PAPERS[name](chain)
    draws = Repeated(0, 10, (2, 2), every_round=False)
    with pytest.raises(SpecpolicyError, match="adds no noise"):
        reference(MixtureDenoiser(chain.process), chain, draws.state, None, draws)


# -- the references by themselves --------------------------------------------------------------------------------------

CHUNKS = 800
LAW_CHAIN = GaussianChain.ddpm(100, 6, prediction="sample")
LAW_CENTRES = torch.tensor([[[0.9, 0.1]], [[-0.6, -0.8]], [[-0.5, 0.8]]], dtype=DOUBLE)
LAW_DENOISER = MixtureDenoiser(LAW_CHAIN.process, spread=0.1, centres=LAW_CENTRES)
LAW_REFERENCES = {
    "asd": literal.autospeculative_decoding,
    "speculative sampling, independent": functools.partial(
        literal.speculative_sampling, draft_denoiser=MixtureDenoiser(LAW_CHAIN.process, 0.3, LAW_CENTRES)
    ),
    "residual": literal.residual_speculative_sampling,
    "block": literal.block_verification,
}
LAW_TESTS = len(LAW_REFERENCES) + 4 + 1  # whole chains; one step, two couplings at two gaps; two steps of a block


@functools.cache
def target():
    """The tests against 40,000 chunks (1, 2) of the sequential sampler."""
    generator = torch.Generator().manual_seed(1)
    return ChainDistribution(
        LAW_DENOISER,
        LAW_CHAIN,
        sample(LAW_DENOISER, LAW_CHAIN, (40_000, 1, 2), None, "ddpm", generator, True, dtype=DOUBLE).states,
    )


@torch.inference_mode()
def verdict(reference, seed):
    """On 800 chunks of a reference, final ones and consecutive states; at least one draft in a chunk was rejected,
    on average."""
    generator, states, rounds = torch.Generator().manual_seed(seed), [], 0
    for _ in range(CHUNKS):
        state = torch.randn(1, 2, generator=generator, dtype=DOUBLE)
        drawn = reference(LAW_DENOISER, LAW_CHAIN, state, None, literal.fresh_draws(generator, state))
        states.append(torch.stack(drawn.states))
        rounds += len(drawn.accepted)
    assert rounds > 2 * CHUNKS
    return target()(torch.stack(states, dim=1))


@pytest.mark.parametrize("name", LAW_REFERENCES)
def test_a_reference_has_the_distribution_of_the_sequential_sampler(name):
    found = verdict(LAW_REFERENCES[name], seed=2)
    assert found.p > FALSE_ALARMS / LAW_TESTS, str(found)


def test_a_redraw_after_a_rejection_is_found_out(monkeypatch):
    monkeypatch.setattr(literal, "reflection_coupling", redrawing)
    found = verdict(literal.autospeculative_decoding, seed=2)
    assert found.p < 1e-6, str(found)


REFLECTION = literal.reflection_coupling
REDRAWS = torch.Generator().manual_seed(3)


def redrawing(draft_mean, target_mean, sigma, draw):
    """Not exact: a rejected draft is drawn anew from the target, which counts its accepted part twice."""
    kept, state = REFLECTION(draft_mean, target_mean, sigma, draw)
    noise = torch.randn(target_mean.shape, generator=REDRAWS, dtype=DOUBLE)
    return kept, state if kept else target_mean + sigma * noise


def one_step(couple, gap, count=3_000):
    """Noises (count, 2), seen from the target's mean, along the gap and across it, and how often the draft was kept."""
    generator, sigma = torch.Generator().manual_seed(6), 0.7
    draft_mean, target_mean = torch.zeros(1, 2, dtype=DOUBLE), torch.tensor([[0.6, 0.8]], dtype=DOUBLE) * gap * sigma
    draws = [literal.fresh_draws(generator, draft_mean)(0, 0) for _ in range(count)]
    pairs = [couple(draft_mean, target_mean, sigma, draw) for draw in draws]
    noise = torch.cat([(state - target_mean) / sigma for _, state in pairs])
    return noise @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=DOUBLE), sum(kept for kept, _ in pairs)


@pytest.mark.parametrize("gap", (0.4, 1.5))
@pytest.mark.parametrize("couple", (literal.reflection_coupling, literal.residual_coupling))
def test_one_step_is_the_targets_and_is_accepted_as_often_as_any_coupling_can(couple, gap):
    noise, kept = one_step(couple, gap)
    chance = 2 * stats.norm.cdf(-gap / 2)
    p = [ks_normal(noise[:, 0]), ks_normal(noise[:, 1]), stats.binomtest(kept, len(noise), chance).pvalue]
    assert bonferroni(p) > FALSE_ALARMS / LAW_TESTS
    assert ks_normal(one_step(redrawing, gap)[0][:, 0]) < (1e-30 if gap > 1 else 1e-6)


def two_steps(correct, count=20_000):
    """The p-value of the joint distribution of two steps whose drafts are off by 1 and 2 sigma, under block
    verification; `correct(log_p, delta, place, uniform)` says where a rejected draft goes, from the draft's mean."""
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(8), dtype=DOUBLE)
    uniform = torch.rand(count, 3, generator=torch.Generator().manual_seed(9), dtype=DOUBLE)
    deltas, emitted = [1.0, 2.0], []
    for (*places, later), (*uniforms, redraw) in zip(noise.tolist(), uniform.tolist(), strict=True):
        tau, log_p = literal.block_length(deltas, places, uniforms)
        steps = [place - delta for place, delta in zip(places, deltas, strict=True)][:tau]
        if tau < 2:
            steps.append(correct(log_p, deltas[tau], places[tau], redraw) - deltas[tau])
        emitted.append([*steps, later][:2])  # behind a block that ended early, an ordinary step
    first, second = torch.tensor(emitted, dtype=DOUBLE).T
    return bonferroni([ks_normal(one) for one in (first, second, (first + second) / 2**0.5, (first - second) / 2**0.5)])


def test_two_steps_of_a_block_are_the_targets_and_with_a_mirror_they_are_not():
    right = two_steps(lambda log_p, delta, place, uniform: literal.residual_coordinate(log_p, delta, uniform))
    assert right > FALSE_ALARMS / LAW_TESTS
    # Reflection is right for a single draft, and inside a block it is not.
    assert two_steps(lambda log_p, delta, place, uniform: delta - place) < 1e-6


def test_the_residual_is_drawn_at_its_distribution_function():
    """Against a numerical integral of its density, at five uniform numbers."""
    from scipy import integrate

    for log_p, delta in ((0.0, 0.3), (0.0, 4.0), (math.log(0.3), 1.0), (math.log(0.9), 0.2)):

        def density(s, log_p=log_p, delta=delta):
            return max(math.exp(log_p) * stats.norm.pdf(s - delta) - stats.norm.pdf(s), 0.0)

        edge = delta / 2 - log_p / delta
        mass = integrate.quad(density, edge, edge + 20, epsabs=1e-14)[0]
        assert literal.residual_mass(log_p, delta) == pytest.approx(mass, rel=1e-6)
        for uniform in (0.0, 0.1, 0.5, 0.9, 0.999):
            place = literal.residual_coordinate(log_p, delta, uniform)
            assert integrate.quad(density, edge, place, epsabs=1e-14)[0] / mass == pytest.approx(uniform, abs=1e-6)
