"""The loop: its book-keeping, and rows of a batch at their own steps."""

import pytest
import torch
from exactness_cases import CHAINS, DRAFTERS, Composed
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import MixtureDenoiser
from replay import Table, replay
from small_runs import EXACT, SHAPE, conditions, run

from specpolicy import Calibration, GaussianChain, make_sampler, sample
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate
from specpolicy.samplers.speculative.verifiers import VERIFIERS

# Every verifier with a drafter that may be used with it.
PAIRS = [(v, d) for v in VERIFIERS for d in DRAFTERS if VERIFIERS[v].keeps_noise or not d.startswith("recycled")]
pairs = pytest.mark.parametrize("verifier, drafter", PAIRS)


def generators(rows):
    """One for each row, by its number."""
    return [torch.Generator().manual_seed(1000 + row) for row in rows]


# -- book-keeping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", (1, 4, 30, None))
@pairs
def test_every_step_is_accounted_for(verifier, drafter, window):
    """Each round commits what it accepted and one state more; a round that accepts less than it drafted is a
    rejection at its step; the network was called and its rows were evaluated as often as the statistics say."""
    out, counting = run(Composed(DRAFTERS[drafter], VERIFIERS[verifier](), window))
    count, batch = len(CHAINS["ddpm"]), 6
    steps, rejections = torch.zeros(batch, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    evaluated, rounds = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64)
    for accepted, rows in zip(out.stats.accepted, out.stats.evaluated, strict=True):
        for row in range(batch):
            if steps[row] == count:
                assert accepted[row] == rows[row] == -1
                continue
            width = min(window or count, count - 1 - int(steps[row]))
            assert 0 <= accepted[row] <= width
            if drafter.startswith("recycled") and rounds[row]:  # what is known is not evaluated again
                assert 1 <= rows[row] <= width + 1
            else:
                assert rows[row] == width + 1
            rejections[int(steps[row]) + int(accepted[row])] += int(accepted[row] < width)
            evaluated[row] += rows[row]
            rounds[row] += 1
            steps[row] += accepted[row] + 1
    assert steps.tolist() == [count] * batch
    assert torch.equal(out.stats.rejections, rejections)
    # Two calls a round where the drafter evaluates the root, except where nothing lies behind it; a free one, once.
    last = {row: [int(a[row]) for a in out.stats.accepted if a[row] >= 0] for row in range(batch)}
    lone = torch.tensor([_is_lone(last[row], count) for row in range(batch)]).long()
    extra = {"frozen_root": rounds - lone, "corrected": rounds - lone, "free": torch.ones_like(rounds)}
    assert torch.equal(out.stats.calls, rounds + extra.get(drafter, torch.zeros_like(rounds)))
    # The root is evaluated once, by whoever does it.
    assert torch.equal(out.stats.rows, evaluated)
    assert counting.rows == int(out.stats.rows.sum())
    assert out.stats.calls.max() <= counting.calls
    assert out.states.shape == (count + 1, batch, *SHAPE) and torch.equal(out.states[-1], out.actions)


def _is_lone(accepted, count):
    """Whether the last round began at the last step, where only the root is evaluated."""
    return sum(accepted[:-1]) + len(accepted) - 1 == count - 1


def test_finished_rows_cost_nothing():
    """Calls shrink: rows are counted where the network sees them, and the slowest row goes on alone."""
    sizes = []

    def watching(x, t, cond):
        sizes.append(len(x))
        assert cond.shape[0] == len(x) == len(t)
        return MixtureDenoiser(CHAINS["ddpm"].process)(x, t, cond)

    out, _ = run(make_sampler("block", window=4), batch=30, denoiser=watching)
    rounds = torch.stack(out.stats.accepted)
    working = (rounds >= 0).sum(1)
    assert working[0] == 30 and working[-1] < 10
    assert sum(sizes) == int(out.stats.rows.sum()) and sizes[-1] <= 5 * int(working[-1])


@pytest.mark.parametrize("name", EXACT)
def test_a_constant_network_needs_the_fewest_calls(name):
    """Nothing is ever rejected where every guess is right: delta is zero."""
    chain = GaussianChain.ddpm(20, prediction="sample")

    def constant(x, t, cond):
        return torch.full_like(x, 0.4)

    sampler, calls = make_sampler(name, window=None), 2
    if name == "recycled":  # what it knows beforehand is told: chunks that do not vary
        prior, size = GaussianSurrogate(chain.process.alpha_bar, SHAPE), SHAPE[0] * SHAPE[1]
        prior.set(torch.zeros(size, size), torch.zeros(size, 0), torch.full((size,), 0.4))
        sampler, calls = make_sampler(name, window=None, calibration=Calibration(prior)), 1
    out = sample(constant, chain, (3, *SHAPE), None, sampler, torch.Generator().manual_seed(0))
    assert out.stats.calls.tolist() == [calls] * 3 and out.stats.rejections.sum() == 0
    torch.testing.assert_close(out.actions, torch.full_like(out.actions, 0.4))


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", (3, None))
@pairs
def test_a_batch_is_as_many_chunks_alone(verifier, drafter, window):
    """With a generator each, chunks and their costs do not depend on the rows beside them."""
    sampler = Composed(DRAFTERS[drafter], VERIFIERS[verifier](), window)
    chain, cond, rows = CHAINS["ddpm"], conditions(5), [0, 1, 2, 3, 4]

    def draw(chosen):
        denoiser, sources = MixtureDenoiser(chain.process), generators(chosen)
        # In float64, so that rounding does not tip a decision.
        out = sample(
            denoiser,
            chain,
            (len(chosen), *SHAPE),
            cond[chosen].double(),
            sampler,
            sources,
            return_states=True,
            dtype=torch.float64,
        )
        # What is drawn next does not either.
        following.append([torch.rand(1, generator=source).item() for source in sources])
        return out

    following: list[list[float]] = []

    together, alone = draw(rows), [draw([row]) for row in rows]
    torch.testing.assert_close(together.actions, torch.cat([one.actions for one in alone]), rtol=0, atol=1e-9)
    torch.testing.assert_close(together.states, torch.cat([one.states for one in alone], dim=1), rtol=0, atol=1e-8)
    assert torch.equal(together.stats.calls, torch.cat([one.stats.calls for one in alone]))
    assert torch.equal(together.stats.rows, torch.cat([one.stats.rows for one in alone]))
    assert torch.equal(together.stats.rejections, sum(one.stats.rejections for one in alone))
    assert following[0] == [following[1 + row][0] for row in rows]
    mixed = draw([3, 1])
    torch.testing.assert_close(mixed.actions, together.actions[[3, 1]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_the_same_seed_gives_the_same_chunk_and_another_seed_does_not(name):
    first, second, third = (run(make_sampler(name), seed=seed)[0].actions for seed in (4, 4, 5))
    assert torch.equal(first, second) and not torch.isclose(first, third).all()


def test_one_condition_serves_all_rows():
    chain, one = CHAINS["ddpm"], conditions(1)
    drawn = [
        sample(MixtureDenoiser(chain.process), chain, (4, *SHAPE), cond, "block", generators(range(4))).actions
        for cond in (one, one.repeat(4, 1, 1))
    ]
    assert torch.equal(*drawn)


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 9), min_size=8, max_size=8),
    st.sampled_from(PAIRS),
    st.integers(0, 4),
)
def test_whatever_the_windows_every_row_reaches_the_end(windows, pair, batch):
    verifier, drafter = VERIFIERS[pair[0]](), DRAFTERS[pair[1]]
    chain = CHAINS["ddim, v prediction"]
    table = Table.draw(1, batch, 8, SHAPE, rounds=20)
    if verifier.keeps_noise:
        table = Table(table.noise[0], table.uniforms[0], table.joins)
    state = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
    denoiser = MixtureDenoiser(chain.process)
    out, rounds = replay(denoiser, chain, state, None, table, drafter(chain, SHAPE), verifier, windows)
    assert out.actions.isfinite().all() and out.states.isfinite().all()
    for row in range(batch):
        assert sum(one.accepted + 1 for one in rounds[row]) == 8
        assert all(len(one.x0) == min(windows[one.start], 7 - one.start) for one in rounds[row])
