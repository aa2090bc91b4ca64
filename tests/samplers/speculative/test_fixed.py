"""Rounds of fixed shapes make the chunk that a batch of tensors makes of the same numbers, launch the same operations
whatever the numbers are, and wait once."""

import pytest
import torch
from exactness_cases import CHAINS, student
from hypothesis import given, settings
from hypothesis import strategies as st
from in_place import InPlace, Signature
from mixtures import Counting, MixtureDenoiser
from replay import Table, replay

from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, NoiseSource
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.fixed import RecycledFixed
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate
from specpolicy.samplers.rounds.captured import CapturedRounds
from specpolicy.samplers.speculative.drafters import Free, FrozenRoot
from specpolicy.samplers.speculative.loop import longest_windows
from specpolicy.samplers.speculative.verifiers import VERIFIERS, Reflection

SHAPE = (2, 2)


def smooth(chain):
    return GaussianSurrogate.smooth(chain.process.alpha_bar, SHAPE)


def taught(chain):
    return student(chain, SHAPE)


# By name: (a drafter for batches, the same for rounds of fixed shapes), of a chain.
PAIRS = {
    "frozen_root": (lambda chain: FrozenRoot(), lambda chain: FrozenRoot()),
    "free": (lambda chain: Free(), lambda chain: Free()),
}
for label, surrogate, sweeps in (("4 sweeps", smooth, 4), ("1 sweep", smooth, 1), ("student", taught, 3)):
    PAIRS[f"recycled, {label}"] = (
        lambda chain, make=surrogate, sweeps=sweeps: RecycledDrafter(
            make(chain).placed(torch.device("cpu"), torch.float64), sweeps, False
        ),
        lambda chain, make=surrogate, sweeps=sweeps: RecycledFixed(
            make(chain).placed(torch.device("cpu"), torch.float64), sweeps
        ),
    )
CASES = [(v, d) for v in VERIFIERS for d in PAIRS if VERIFIERS[v].keeps_noise or not d.startswith("recycled")]


def both(chain, verifier, drafter, window, seed=0, conditioned=True):
    """The sample of a batch of one, and in rounds of fixed shapes, with the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    state, cond = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    kind, (stacked, fixed) = VERIFIERS[verifier], PAIRS[drafter]
    cond = 0.3 * cond if conditioned else None

    def table():
        drawn = Table.draw(seed, 1, len(chain), SHAPE, rounds=len(chain) + 1, dtype=torch.float64)
        return Table(drawn.noise[0], drawn.uniforms[0]) if kind.keeps_noise else drawn

    denoiser = MixtureDenoiser(chain.process)
    batch, _ = replay(denoiser, chain, state, cond, table(), stacked(chain), kind(), window)
    capture = InPlace(denoiser)
    rounds = CapturedRounds(chain, fixed(chain), kind(), longest_windows(window, len(chain)), capture)
    model = Model(Counting(denoiser))
    with torch.inference_mode():
        rounds(model, Chunks(torch.ones_like(state), cond, table()))  # what is left of a chunk must not matter
        model = model.fresh()
        out = rounds(model, Chunks(state, cond, table(), return_states=True))
    return batch, out, model


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("verifier, drafter", CASES)
def test_both_draw_the_same_chunk_by_the_same_rounds(verifier, drafter, chain):
    rejections = 0
    for seed, window in ((0, None), (1, 4), (2, 1), (3, 6)):
        batch, fixed, model = both(CHAINS[chain], verifier, drafter, window, seed)
        torch.testing.assert_close(fixed.states, batch.states, rtol=0, atol=1e-8)
        torch.testing.assert_close(fixed.actions, batch.actions, rtol=0, atol=1e-8)
        for name in ("calls", "rows", "rejections"):
            assert torch.equal(getattr(fixed.stats, name), getattr(batch.stats, name)), name
        for name in ("accepted", "evaluated"):
            assert torch.equal(torch.stack(getattr(fixed.stats, name)), torch.stack(getattr(batch.stats, name)))
        assert len(model.rows_by_call) == int(fixed.stats.calls) and sum(model.rows_by_call) >= int(fixed.stats.rows)
        rejections += int(batch.stats.rejections.sum())
    assert rejections > 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=8, max_size=8), st.sampled_from(CASES), st.integers(0, 10_000))
def test_they_do_so_whatever_the_windows(windows, case, seed):
    batch, fixed, _ = both(CHAINS["ddim, v prediction"], *case, windows, seed, conditioned=False)
    torch.testing.assert_close(fixed.actions, batch.actions, rtol=0, atol=1e-6)


@pytest.mark.parametrize("drafter", ("frozen_root", "free", "recycled, student"))
def test_a_round_launches_the_same_operations_whatever_the_numbers_are(drafter):
    """What a CUDA graph takes for granted: it replays what it once saw."""
    chain, signatures = GaussianChain.ddpm(20), {}
    rounds = CapturedRounds(
        chain,
        PAIRS[drafter][1](chain),
        Reflection(),
        longest_windows(None, 20),
        InPlace(MixtureDenoiser(chain.process), signatures),
    )
    for seed in range(4):
        source = NoiseSource(torch.Generator().manual_seed(seed), 1, torch.device("cpu"), torch.float64)
        with torch.no_grad():
            rounds(Model(None), Chunks(source.normal(*SHAPE), None, source))
    runs = [len(found) for found in signatures.values()]
    assert sum(runs) >= 12 and max(runs) >= 4
    for found in signatures.values():
        assert len(set(found)) <= 1


def test_a_signature_tells_operations_apart():
    for changes in (lambda x: x[x > 0].sum(), lambda x: x.sum() if x.sum() > 0 else x.mean()):
        seen = []
        for sign in (1.0, -1.0):
            with Signature() as signature:
                changes(torch.tensor([sign, 1.0, -0.5]) * sign)
                changes(torch.tensor([-2.0 * sign]))
            seen.append(signature.found())
        assert seen[0] != seen[1]


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_a_network_that_breaks_down_is_named_with_its_step(value):
    chain = GaussianChain.ddpm(20, prediction="sample", clip=None)

    def broken(x, t, cond):
        return torch.where(t.view(-1, 1, 1) == 11, value, x)

    source = NoiseSource(torch.Generator().manual_seed(0), 1, torch.device("cpu"), torch.float32)
    rounds = CapturedRounds(chain, Free(), Reflection(), longest_windows(None, 20), InPlace(broken))
    with pytest.raises(SpecpolicyError, match=r"the denoiser .* not finite at step 8 \(timestep 11\)"):
        rounds(Model(broken), Chunks(source.normal(*SHAPE), None, source))


@pytest.mark.parametrize("rounds_before", range(2, 7))
def test_a_chunk_that_fails_leaves_nothing_to_the_next_ones(rounds_before):
    """Its guesses are no numbers. The next chunk accepts whole windows, behind which there is no guess of its own."""
    chain, calls, wild = GaussianChain.ddpm(20, prediction="sample"), [], []

    def network(x, t, cond):
        calls.append(len(x))
        if not wild:
            return torch.zeros_like(x)
        # Two calls a round: the drafts are rejected at once, so that each root is one step further.
        return torch.full_like(x, torch.nan if len(calls) > 2 * rounds_before else (-1.0) ** len(calls))

    def drawn(rounds, seed):
        source = NoiseSource(torch.Generator().manual_seed(seed), 1, torch.device("cpu"), torch.float64)
        with torch.no_grad():
            return rounds(Model(None), Chunks(source.normal(*SHAPE), None, source)).actions

    limits = longest_windows(4, len(chain))
    used, fresh = (CapturedRounds(chain, FrozenRoot(), Reflection(), limits, InPlace(network)) for _ in range(2))
    expected = drawn(fresh, 2)
    drawn(used, 0)
    calls.clear()
    wild.append(True)
    with pytest.raises(SpecpolicyError, match="not finite"):
        drawn(used, 1)
    wild.clear()
    assert expected.isfinite().all() and torch.equal(drawn(used, 2), expected)
