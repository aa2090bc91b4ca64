"""Chunks given committed actions are drawn exactly: by every exact sampler from the conditioned chain.

The noises of the conditioned chain are recovered from 3,000 chunks each; under its distribution they are independent
standard normals, given what came before. The false-alarm rate of all cases of a run together is 1e-3 (Bonferroni).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from distribution_tests import innovation_p, innovations
from exactness_cases import FALSE_ALARMS, SHAPE, Composed, InFixedShapes, poor_denoiser
from mixtures import MixtureDenoiser, correction_head
from policies import STEPS, subject

from specpolicy import GaussianChain, make_sampler
from specpolicy.committed import PREDICTED, TRAINED
from specpolicy.committed import WAYS as NAMES
from specpolicy.conditioning import Continuation, Given, Packing, make_way
from specpolicy.model import Model
from specpolicy.samplers import BoundSampler, Setting
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.fixed import RecycledFixed
from specpolicy.samplers.recycled.single import TorchSurrogate
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate
from specpolicy.samplers.recycled.surrogates.continued import ContinuedHostSurrogate, ContinuedSurrogate
from specpolicy.samplers.speculative.drafters import FrozenRoot
from specpolicy.samplers.speculative.problem import Drafts
from specpolicy.samplers.speculative.verifiers import Reflection

WAYS = [way for way in NAMES if way not in (TRAINED, PREDICTED)]
CHAIN = GaussianChain.ddpm(20)
NETWORK = MixtureDenoiser(CHAIN.process)
COUNT = 3000
KNOWN = torch.tensor([[0.2, 0.6], [-0.5, 0.1]])  # a plan that no chunk of the mixture follows


def continuation(way):
    """One committed action of two that are known."""
    variances, basis = torch.linalg.eigh(torch.eye(4, dtype=torch.float64) * 0.2 + 0.1)
    return Continuation(make_way(way, CHAIN.process, SHAPE, 0, 2, (basis, variances)), Packing(None, 4))


def packed(told):
    """(1, n) what is given."""
    weights = told.way.weights(1, 2)[:, None].expand(2, 2)
    values = KNOWN * (weights > 0)
    return told.packing.pack(None, Given(values.reshape(1, 4), weights.reshape(1, 4), torch.ones(1, 1)))


def conditioned(told):
    """The denoiser of the conditioned chain, in any batch."""
    denoiser, row = told.denoiser(NETWORK), packed(told)
    return lambda x, t, cond=None: denoiser(x, t, row.expand(len(x), -1))


def setting(told):
    """The setting of samplers that are told."""
    return Setting(Model(NETWORK), CHAIN, torch.Size(SHAPE)).continuing(told)


def noise_p(sampler, told, where=None, count=COUNT):
    """p of the noises that `count` chunks imply, and the statistics."""
    bound = BoundSampler(sampler, where or setting(told))
    out = bound(count, packed(told), torch.Generator().manual_seed(5), return_states=True)
    return innovation_p(*innovations(conditioned(told), CHAIN, out.states)), out.stats


def smooth(shape):
    """A prior that knows only smoothness."""
    return GaussianSurrogate.smooth(CHAIN.process.alpha_bar, shape)


SAMPLERS = {
    "asd": make_sampler("asd", window=4),
    "block": make_sampler("block", window=None),
    "recycled": make_sampler("recycled"),
    "independent": make_sampler("reflection", drafter="independent", draft_denoiser=poor_denoiser(CHAIN), window=6),
    "corrected": make_sampler("residual", drafter="corrected", head=correction_head),
}
CASES = [("inpaint", name) for name in SAMPLERS] + [(way, name) for way in WAYS[1:] for name in ("block", "recycled")]
CASES += [("rtc", "recycled, fixed shapes"), ("guided", "recycled, fixed shapes"), ("inpaint", "recycled, not told")]


def sampler_of(name, told):
    """A sampler by its name."""
    if name == "recycled, fixed shapes":
        surrogate = ContinuedSurrogate(smooth(SHAPE), told)
        return InFixedShapes(lambda chain, shape: RecycledFixed(surrogate, 2), Reflection())
    if name == "recycled, not told":

        class Untold(ContinuedSurrogate):
            def at(self, tables, features):
                return self.surrogate.at(tuple(tables[:-1]), features[:, : -2 * 4 - 1])

        return Composed(lambda chain, shape: RecycledDrafter(Untold(smooth(shape), told)), Reflection())
    return SAMPLERS[name]


@pytest.mark.parametrize("way, name", CASES)
def test_every_sampler_draws_from_the_conditioned_chain(way, name):
    told = continuation(way)
    p, statistics = noise_p(sampler_of(name, told), told)
    assert p > FALSE_ALARMS / len(CASES)
    assert int(statistics.rejections.sum()) > 500  # without rejections the test means nothing
    assert float(statistics.calls.double().mean()) < told.way.evaluations * len(CHAIN)


@dataclass(frozen=True)
class Misreported(Composed):
    """Drafts with one guess and hands the verifier another: `reported` and `walked` are whether each is told."""

    name: ClassVar[str] = "misreported"
    walked: bool = True
    reported: bool = True

    def bind(self, setting):
        """See `Sampler.bind`."""
        options = self

        class Drafting(FrozenRoot):
            single = False

            def draft(self, memory, problem, window):
                told = super().draft(memory, problem, window)
                here = window.index(0, 1)
                times = problem.timesteps[here].expand(len(window.root), 1).flatten()
                raw = problem.chain.x0(NETWORK(window.root, times)[:, None], window.root[:, None], here)[:, 0]
                untold = problem.follow(window, window.hold(raw), told.known.x0[:, 0])
                walked, reported = (told if one else untold for one in (options.walked, options.reported))
                return Drafts(walked.states, reported.x0, walked.known)

        return replace(self, drafter=lambda chain, shape: Drafting())._composed(setting)

    def _composed(self, setting):
        return Composed(self.drafter, self.verifier, self.window).bind(setting)


@pytest.mark.parametrize("walked, reported", ((True, False), (False, True)))
def test_a_prefix_that_only_one_side_knows_is_found_out(walked, reported):
    """The path is drafted with one guess and judged by the other."""
    told = continuation("rtc")
    control = Misreported(None, Reflection(), 4, walked, reported)
    assert noise_p(control, told, count=4 * COUNT)[0] < 1e-10
    for one in (walked, reported):  # the same guess for both, told or not, is exact
        p, _ = noise_p(replace(control, walked=one, reported=one), told)
        assert p > FALSE_ALARMS / 4


def test_a_drafter_that_is_told_under_a_verifier_that_is_not_is_found_out():
    """The result is then that of the unconditioned chain."""
    told = continuation("rtc")
    surrogate = ContinuedSurrogate(smooth(SHAPE), told)
    untold = Setting(Model(lambda x, t, cond: NETWORK(x, t)), CHAIN, torch.Size(SHAPE))
    sampler = Composed(lambda chain, shape: RecycledDrafter(surrogate), Reflection())
    assert noise_p(sampler, told, untold)[0] < 1e-10


@pytest.mark.parametrize("way", WAYS)
def test_surrogates_are_told_the_same(way):
    """At the committed places they say what is committed; and numpy's is that of tensors."""
    told, shape, chain = continuation(way), (2, 2), CHAIN
    surrogate = ContinuedSurrogate(smooth(shape), told)
    row, states = packed(told), torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    features, tables = surrogate.prepare(row), surrogate.look_up(chain.timesteps)
    found = surrogate.at(tables, features)(states[None])[0]
    assert torch.equal(found[:, :2], KNOWN.flatten()[:2].expand(20, 2))
    host = ContinuedHostSurrogate(TorchSurrogate(smooth(shape), chain), told, chain)
    steps = np.arange(20)
    numbers = host(states.double().numpy(), steps, host.prepare(row))
    torch.testing.assert_close(torch.from_numpy(numbers).float(), found, rtol=1e-3, atol=1e-4)
    before = surrogate.prepare(torch.zeros_like(row))
    plain = smooth(shape)
    expected = plain.at(plain.look_up(chain.timesteps), plain.prepare(None))(states[None])
    assert torch.equal(surrogate.at(tables, before)(states[None]), expected)


@pytest.mark.parametrize("name", ("block", "recycled"))
def test_one_chunk_in_numpy_is_that_of_a_batch(name):
    told = continuation("rtc")
    bound = BoundSampler(SAMPLERS[name], setting(told))
    single = bound(1, packed(told), torch.Generator().manual_seed(3), return_states=True)
    bound.draw.single = None
    batch = bound(1, packed(told), torch.Generator().manual_seed(3), return_states=True)
    torch.testing.assert_close(single.states, batch.states, rtol=0, atol=2e-4)
    assert torch.equal(single.stats.calls, batch.stats.calls)


POLICY_CASES = [("inpaint", "block"), ("rtc", "recycled"), ("linear", "recycled")]


@pytest.mark.parametrize("way, name", POLICY_CASES)
def test_a_trained_policy_is_continued_exactly(way, name):
    """The shipped lift policy, 16 steps, 60 chunks that continue the mirror images of others."""
    policy, conds = subject("lift")
    cond, chain, shape = conds.repeat(15, 1), policy.chain.strided(STEPS), torch.Size(policy.sample_shape)
    where = replace(policy.setting(), chain=chain)
    drawn = BoundSampler(make_sampler("ddim", steps=4), where)(60, cond, torch.Generator().manual_seed(8)).actions
    prior = policy.calibration.prior
    size, rule = shape.numel(), make_way(way, chain.process, shape, 1, shape[1], (prior.basis, prior.variances))
    told = Continuation(rule, Packing(tuple(cond.shape[1:]), size))
    weights, values = torch.zeros(60, *shape), torch.zeros(60, *shape)
    weights[:, 1:9] = rule.weights(3, 8)[:, None]
    values[:, 1:9] = -drawn[:, 5:13].clamp(-1, 1)
    given = told.packing.pack(cond, Given(values.flatten(1), weights.flatten(1), torch.full((60, 1), 3.0)))
    bound = BoundSampler(make_sampler(name, window=None), where.continuing(told))
    out = bound(60, given, torch.Generator().manual_seed(9), return_states=True)
    p = innovation_p(*innovations(told.denoiser(policy.denoiser), chain, out.states, given))
    assert p > FALSE_ALARMS / len(POLICY_CASES)
    torch.testing.assert_close(out.actions[:, 1:4], values[:, 1:4], rtol=0, atol=1e-5)
    untold = innovation_p(*innovations(policy.denoiser, chain, out.states, cond))
    assert untold < 1e-10  # the test tells the two chains apart
