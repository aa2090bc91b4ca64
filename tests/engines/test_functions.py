"""Small functions on the network's engine: what torch computes, for any number of rows, made once."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from specpolicy import GaussianChain, SpecpolicyError, make_sampler
from specpolicy.engines import make_engine
from specpolicy.engines.functions import ROWS, compiled_steps
from specpolicy.model import Model
from specpolicy.samplers import Calibration, Setting
from specpolicy.samplers.bound import BoundSampler
from specpolicy.samplers.recycled.single import TorchSurrogate
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate

pytest.importorskip("openvino")
CHAIN, SHAPE, COND = GaussianChain.ddpm(40), (4, 2), 3


class Network(nn.Module):
    """A denoiser that is nothing much."""

    def forward(self, x, t, cond):
        """See `Denoiser`."""
        return torch.tanh(x + cond.sum(dim=1)[:, None, None]) + t[:, None, None] / 100


@pytest.fixture(scope="module")
def engine():
    """OpenVINO with the network."""
    return make_engine("openvino", Network().eval(), SHAPE, (COND,), 4)


def surrogates():
    """A prior and a student with weights."""
    generator = torch.Generator().manual_seed(0)
    prior = GaussianSurrogate.smooth(CHAIN.process.alpha_bar, torch.Size(SHAPE))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        student = StudentSurrogate(CHAIN.process.alpha_bar, SHAPE, COND, width=8, context=4, hidden=16, observation=16)
        for parameter in student.parameters():
            nn.init.normal_(parameter, std=0.2)
    covariance = torch.randn(8, 8, generator=generator)
    student.prior(covariance @ covariance.T / 8, torch.zeros(8, COND), torch.zeros(8))
    return {"prior": prior, "student": student.eval().requires_grad_(False)}


@pytest.mark.parametrize("name", ("prior", "student"))
def test_a_surrogate_guesses_there_what_it_guesses_in_torch(name, engine):
    surrogate, generator = surrogates()[name], np.random.default_rng(0)
    here, there = TorchSurrogate(surrogate, CHAIN), TorchSurrogate(surrogate, CHAIN, engine)
    assert here.compiled is None and there.compiled is not None
    cond = torch.randn(1, COND, generator=torch.Generator().manual_seed(2)) if name == "student" else None
    for rows in (1, 2, 3, 7, 33, 40):
        states, steps = generator.standard_normal((rows, 8)), generator.integers(0, 40, rows)
        expected = here(states, steps, here.prepare(cond))
        found = there(states, steps, there.prepare(cond))
        assert found.dtype == np.float64 and found.shape == (rows, 8)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        # What is returned stays as it is when the next call is made.
        kept = found.copy()
        there(states + 1, steps, there.prepare(cond))
        assert np.array_equal(found, kept)


def test_it_is_made_once_for_a_surrogate_and_a_chain(engine):
    student = surrogates()["student"]
    made = [TorchSurrogate(student, chain, engine).compiled for chain in (CHAIN, CHAIN, CHAIN.strided(10))]
    assert made[0] is made[1] and made[2] is not made[0]


def test_threads_take_turns(engine):
    surrogate = surrogates()["student"]
    there, cond = TorchSurrogate(surrogate, CHAIN, engine), torch.ones(1, COND)
    features, steps = there.prepare(cond), np.arange(12)
    given = [np.random.default_rng(number).standard_normal((12, 8)) for number in range(4)]
    expected, wrong = [there(states, steps, features) for states in given], []

    def ask(number):
        for _ in range(50):
            if not np.array_equal(there(given[number], steps, features), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_torch_computes_where_the_engine_has_nothing_quicker():
    assert TorchSurrogate(surrogates()["student"], CHAIN, Network()).compiled is None
    assert compiled_steps(make_engine("eager", Network().eval(), SHAPE, (COND,)), None, CHAIN, None) is None


def test_what_computes_something_else_is_refused(engine):
    """Tracing takes a number that torch computes anew in every call as it was."""

    class Counting(nn.Module):
        calls = 0

        def forward(self, values, steps, features):
            self.calls += 1
            return values * self.calls + steps[:, None] + features.sum()

    inputs = torch.ones(5, 2), torch.arange(5), torch.ones(1, 3)
    with pytest.raises(SpecpolicyError, match="differs from torch"):
        compiled_steps(engine, object(), CHAIN, lambda: (Counting(), inputs))


def test_the_recycled_sampler_drafts_with_it(engine):
    """On the CPU one chunk's student is the engine's, and draws what torch's student draws, to rounding."""
    made = surrogates()
    prior = GaussianSurrogate(CHAIN.process.alpha_bar, SHAPE, COND)
    calibration = Calibration(prior, made["student"])
    chunks = []
    for network in (Network().eval(), engine):
        setting = Setting(Model(network), CHAIN, torch.Size(SHAPE), calibration=calibration)
        drawn = make_sampler("recycled").bind(setting)
        assert (drawn.single.surrogate.compiled is None) == (network is not engine)
        bound = BoundSampler(make_sampler("recycled"), setting)
        out = bound(1, torch.ones(1, COND), torch.Generator().manual_seed(3))
        assert int(out.stats.rejections.sum()) > 2
        chunks.append(out.actions)
    torch.testing.assert_close(chunks[0], chunks[1], rtol=0, atol=1e-3)
    assert tuple(sorted(ROWS)) == ROWS
