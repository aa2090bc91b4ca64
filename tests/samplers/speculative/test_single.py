"""One chunk in numpy is the chunk that a batch of tensors makes of the same numbers."""

import pytest
import torch
from exactness_cases import CHAINS, DRAFTERS
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import Counting, MixtureDenoiser
from replay import Table, replay
from test_structure import alone

from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, NoiseSource
from specpolicy.samplers.rounds.host_chain import HostChain
from specpolicy.samplers.rounds.single import Single
from specpolicy.samplers.speculative.samplers import Speculation
from specpolicy.samplers.speculative.verifiers import VERIFIERS, Reflection

SHAPE = (2, 2)
SINGLE = {name: make for name, make in DRAFTERS.items() if name in ("frozen_root", "free")}
SINGLE |= {name: make for name, make in DRAFTERS.items() if name.startswith("recycled")}
PAIRS = [(v, d) for v in VERIFIERS for d in SINGLE if VERIFIERS[v].keeps_noise or not d.startswith("recycled")]


def both(chain, verifier, drafter, window, seed=0, conditioned=True):
    """((sample, rounds) of a batch of one, the same in numpy, calls of the network each)."""
    generator = torch.Generator().manual_seed(seed)
    state, cond = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    kind, found, calls = VERIFIERS[verifier], [], []
    for single in (False, True):
        table = Table.draw(seed, 1, len(chain), SHAPE, rounds=len(chain) + 1, dtype=torch.float64)
        if kind.keeps_noise:
            table = Table(table.noise[0], table.uniforms[0], table.joins)
        make = alone(DRAFTERS[drafter]) if single and drafter.startswith("recycled") else DRAFTERS[drafter]
        counting = Counting(MixtureDenoiser(chain.process))
        parts = counting, chain, state, 0.3 * cond if conditioned else None, table, make(chain, SHAPE), kind()
        out, rounds = replay(*parts, window, single)
        found.append((out, rounds[0]))
        calls.append((counting.calls, counting.rows))
    return *found, calls


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("verifier, drafter", PAIRS)
def test_both_draw_the_same_chunk_by_the_same_rounds(verifier, drafter, chain):
    rejections = 0
    for seed, window in ((0, None), (1, 4), (2, 1), (3, 6), (4, None)):
        (batch, rounds), (single, others), calls = both(CHAINS[chain], verifier, drafter, window, seed)
        close = {"rtol": 0, "atol": 1e-8}
        torch.testing.assert_close(single.states, batch.states, **close)
        torch.testing.assert_close(single.actions, batch.actions, **close)
        for name in ("calls", "rows", "rejections"):
            assert torch.equal(getattr(single.stats, name), getattr(batch.stats, name))
        for name in ("accepted", "evaluated"):
            assert torch.equal(torch.stack(getattr(single.stats, name)), torch.stack(getattr(batch.stats, name)))
        for one, other in zip(rounds, others, strict=True):
            assert one.start == other.start and torch.equal(one.known, other.known)
            torch.testing.assert_close(other.x0, one.x0, **close)
            torch.testing.assert_close(other.noise, one.noise, rtol=0, atol=1e-7)
        assert calls[0] == calls[1]
        rejections += int(batch.stats.rejections.sum())
    assert rejections > 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=8, max_size=8), st.sampled_from(PAIRS), st.integers(0, 10_000))
def test_they_do_so_whatever_the_windows(windows, pair, seed):
    (batch, _), (single, _), _ = both(CHAINS["ddim, v prediction"], *pair, windows, seed, conditioned=False)
    torch.testing.assert_close(single.actions, batch.actions, rtol=0, atol=1e-4)


def test_one_chunk_on_the_cpu_is_drawn_in_numpy_and_others_are_not():
    """No operation of torch is launched for it but what gives and takes the network its tensors."""
    chain = GaussianChain.ddpm(20, prediction="sample")
    seen = []

    def network(x, t, cond):
        seen.append((x.dtype, t.tolist(), len(x)))
        return x.tanh()

    draw = Speculation(chain, DRAFTERS["free"](chain, SHAPE), Reflection(), 5)
    for batch, dtype in ((1, torch.float32), (1, torch.float64), (3, torch.float32)):
        source = NoiseSource(torch.Generator().manual_seed(0), batch, torch.device("cpu"), dtype)
        seen.clear()
        out = draw(Model(network), Chunks(source.normal(*SHAPE), None, source))
        assert out.actions.dtype == dtype and out.actions.shape == (batch, *SHAPE)
        assert {one[0] for one in seen} == {dtype} and seen[0][1][0] == 19
        assert sum(rows for *_, rows in seen) == int(out.stats.rows.sum())


def test_a_chain_in_numpy_takes_the_steps_of_the_chain():
    """x0, clip, drift, gap and rollout, on chains with and without a clip, and that keep the network's epsilon."""
    generator = torch.Generator().manual_seed(0)
    for chain in CHAINS.values():
        host, count = HostChain(chain), len(chain)
        output, state, other, root = (torch.randn(count, 4, generator=generator).double() for _ in range(4))
        chunks = (part.view(count, 2, 2) for part in (output, state, other, root))
        wide, at, there, begin = (2 * part for part in chunks)
        every = torch.arange(count)
        x0, second = chain.x0(wide, at, every), chain.clip(there)
        found = host.x0(2 * output.numpy(), 2 * state.numpy(), slice(0, count))
        pairs = [(found, x0), (host.clipped(2 * other.numpy()), second)]
        pairs += [(host.drift(found, slice(0, count)), chain.drift(x0, every))]
        pairs += [(host.gap(found, pairs[1][0], slice(0, count)), chain.gap(x0, second, every))]
        rolled = chain.rollout(begin[:1], x0[None], slice(0, count))[0]
        pairs += [(host.rollout(2 * root.numpy()[0], found, slice(0, count)), rolled)]
        for one, expected in pairs:
            torch.testing.assert_close(torch.from_numpy(one).view(count, 2, 2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_a_network_that_breaks_down_is_named_with_its_step(value):
    chain = GaussianChain.ddpm(20, prediction="sample", clip=None)

    def broken(x, t, cond):
        return torch.where(t.view(-1, 1, 1) == 11, value, x)

    source = NoiseSource(torch.Generator().manual_seed(0), 1, torch.device("cpu"), torch.float32)
    chunks = Chunks(source.normal(*SHAPE), None, source)
    draw = Speculation(chain, DRAFTERS["free"](chain, SHAPE), Reflection())
    with pytest.raises(SpecpolicyError, match=r"the denoiser .* not finite at step 8 \(timestep 11\)"):
        draw(Model(broken), chunks)


def test_no_noise_that_a_caller_holds_is_written_to():
    """State is a value: what is drawn with stays as it was, for whoever gave it."""
    chain = CHAINS["ddpm"]
    table = Table.draw(3, 1, len(chain), SHAPE, dtype=torch.float64)
    before = table.noise.clone()
    make = alone(DRAFTERS["recycled"])
    out, _ = replay(
        MixtureDenoiser(chain.process), chain, torch.ones(1, *SHAPE).double(), None, table, make(chain, SHAPE),
        Reflection(), None, True,
    )  # fmt: skip
    assert out.stats.rejections.sum() > 0 and torch.equal(table.noise, before)
    assert Single.stacked is False
