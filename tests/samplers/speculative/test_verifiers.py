"""Verifiers on their own: acceptance and distribution of one step, block verification against its reference."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from specpolicy.samplers.reference import block_length
from specpolicy.samplers.speculative.verifiers import VERIFIERS, Block, Reflection, Residual

EVERY = tuple(VERIFIERS.values())
DELTAS = (0.0, 1e-6, 0.1, 1.0, 3.0)
N = 100_000


def uniforms(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def full(value, *shape):
    return np.full(shape, value)


def random_windows(batch, window, seed, scale=1.0):
    """Gaps, coordinates, both kinds of uniform numbers and widths of many windows."""
    delta = scale * normals(batch, window, seed=seed) ** 2
    width = np.random.default_rng(seed + 100).integers(1, window + 1, batch)
    coordinate, first, second = (
        normals(batch, window, seed=seed + 1),
        uniforms(batch, window, seed=seed + 2),
        uniforms(batch, window + 1, seed=seed + 3),
    )
    return delta, coordinate, first, second, width


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("delta", DELTAS)
def test_one_step_has_the_targets_distribution_and_the_largest_acceptance(kind, delta):
    """The emitted coordinate is N(delta, 1) seen from the draft mean, and it stays the draft with chance
    2 Phi(-delta / 2), which no coupling can exceed. False alarm 1e-4 each."""
    coordinate = normals(N, 1, seed=1)
    one = np.ones(N, int)
    decision = kind().decide(full(delta, N, 1), coordinate, uniforms(N, 1), uniforms(N, 2, seed=2), one)
    # An accepted draft keeps its coordinate; a rejected one lies at delta + the moved noise.
    moved = delta + coordinate[:, 0] + decision.shift
    emitted = np.where(decision.accepted == 1, coordinate[:, 0], moved)
    assert stats.kstest(emitted, stats.norm(delta).cdf).pvalue > 1e-4
    chance = 2 * stats.norm.cdf(-delta / 2)
    assert stats.binomtest(int(decision.accepted.sum()), N, min(1.0, chance)).pvalue > 1e-4
    assert (decision.shift[decision.accepted == 1] == 0).all()


@pytest.mark.parametrize("kind", (Reflection, Residual, Block))
def test_a_redraw_from_the_target_would_be_found_out(kind):
    """Negative control of the test above, at its smallest gap but two."""
    delta, coordinate = full(0.1, N, 1), normals(N, 1, seed=1)
    decision = kind().decide(delta, coordinate, uniforms(N, 1), uniforms(N, 2, seed=2), np.ones(N, int))
    redrawn = np.where(decision.accepted == 1, coordinate[:, 0], 0.1 + normals(N, seed=7))
    assert stats.kstest(redrawn, stats.norm(0.1).cdf).pvalue < 1e-12


def test_reflection_mirrors_and_residual_does_not():
    coordinate, gap, half = full(-3.0, 1), full(2.0, 1), full(0.5, 1)
    assert Reflection().target_coordinate(gap, coordinate, half) == 3.0
    assert Residual().target_coordinate(gap, coordinate, half) == Residual().target_coordinate(gap, -coordinate, half)


@pytest.mark.parametrize("kind", (Reflection, Residual))
def test_token_verification_stops_at_the_first_rejection(kind):
    delta, coordinate, first, second, width = random_windows(500, 7, seed=3)
    accepted = kind().decide(delta, coordinate, first, second, width).accepted
    for row in range(500):
        expected = 0
        for draft in range(int(width[row])):
            log_ratio = delta[row, draft] * coordinate[row, draft] - delta[row, draft] ** 2 / 2
            if not math.log(1 - first[row, draft]) <= log_ratio:
                break
            expected += 1
        assert int(accepted[row]) == expected


@pytest.mark.parametrize("scale", (0.01, 0.3, 2.0))
def test_a_block_ends_where_the_formulas_say(scale):
    """tau of 2,000 windows of up to 12 drafts, some of them with no gap, against the formulas taken literally."""
    delta, coordinate, first, second, width = random_windows(2000, 12, seed=5, scale=scale)
    delta[uniforms(2000, 12, seed=9) < 0.2] = 0
    decision = Block().decide(delta, coordinate, first, second, width)
    lengths = set()
    for row, w in enumerate(width.tolist()):
        tau, _ = block_length(delta[row, :w].tolist(), coordinate[row, :w].tolist(), first[row, :w].tolist())
        assert int(decision.accepted[row]) == tau
        lengths.add(tau)
    assert len(lengths) > 5


def test_behind_a_block_the_coordinate_is_drawn_from_its_scaled_residual():
    """The second uniform number is the distribution function of max(p_tau q - p_draft, 0) at the new coordinate."""
    delta, coordinate, first, second, width = random_windows(400, 6, seed=11)
    decision = Block().decide(delta, coordinate, first, second, width)
    shares = []
    for row in np.flatnonzero(decision.accepted < width):
        tau, w = int(decision.accepted[row]), int(width[row])
        _, log_p = block_length(delta[row, :w].tolist(), coordinate[row, :w].tolist(), first[row, :w].tolist())
        p, gap = math.exp(log_p), float(delta[row, tau])
        edge = -gap / 2 - log_p / gap
        drawn = float(coordinate[row, tau] + decision.shift[row])

        def tail(t, p=p, gap=gap):
            return p * stats.norm.sf(t) - stats.norm.sf(t + gap)

        assert tail(drawn) / tail(edge) == pytest.approx(1 - float(second[row, tau]), rel=1e-5, abs=1e-9)
        shares.append(p)
    assert min(shares) < 0.5 and max(shares) == 1.0


def test_a_block_is_longer_on_average_than_what_token_verification_accepts():
    """Its expected length is the largest possible; here in 20,000 windows of 20 drafts."""
    delta = full(0.4, 20_000, 20)
    coordinate, first, second = normals(20_000, 20, seed=1), uniforms(20_000, 20), uniforms(20_000, 21, seed=2)
    width = np.full(20_000, 20)
    token, block = (kind().decide(delta, coordinate, first, second, width).accepted for kind in (Reflection, Block))
    assert float(block.mean()) > 1.2 * float(token.mean())


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("uniform", (0.0, 0.5, 1 - 2**-53))
def test_no_gap_is_always_accepted(kind, uniform):
    first, second = full(uniform, 2, 3), full(uniform, 2, 4)
    for delta in (0.0, 1e-13):
        gaps = full(delta, 2, 3)
        decision = kind().decide(gaps, np.zeros((2, 3)), first, second, np.array([3, 2]))
        assert decision.accepted.tolist() == [3, 2] and decision.shift.tolist() == [0, 0]


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("delta", (50.0, 1e8, 1e30, 1e150))
def test_a_huge_gap_is_rejected_and_leaves_a_finite_state(kind, delta):
    gaps, coordinate = full(delta, N // 100, 2), normals(N // 100, 2, seed=1)
    width = np.full(N // 100, 2)
    decision = kind().decide(gaps, coordinate, uniforms(N // 100, 2), uniforms(N // 100, 3, seed=2), width)
    assert (decision.accepted == 0).all() and np.isfinite(decision.shift).all()
    # Nothing of the target is covered by the draft: the state is an ordinary one.
    assert stats.kstest((coordinate[:, 0] + decision.shift), "norm").pvalue > 1e-4


@pytest.mark.parametrize("kind", EVERY)
def test_empty_windows_and_batches(kind):
    nothing = np.zeros((3, 0))
    decision = kind().decide(nothing, nothing, nothing, uniforms(3, 1), np.zeros(3, int))
    assert decision.accepted.tolist() == [0, 0, 0] and decision.shift.tolist() == [0, 0, 0]
    empty = np.zeros((0, 4))
    decision = kind().decide(empty, empty, empty, uniforms(0, 5), np.zeros(0, int))
    assert len(decision.accepted) == len(decision.shift) == 0


@given(
    kind=st.sampled_from(EVERY),
    gaps=st.lists(st.floats(0, 1e6), min_size=1, max_size=8),
    coordinate=st.floats(-8, 8),
    uniform=st.floats(0, 1, exclude_max=True),
    extra=st.integers(0, 3),
)
def test_what_lies_beyond_the_width_of_a_row_does_not_matter(kind, gaps, coordinate, uniform, extra):
    """Whatever the numbers, decisions are finite, within the window, and blind to the padding of shorter rows."""
    width = len(gaps)
    delta = np.array([gaps + [3.0] * extra])
    first, second = np.full_like(delta, uniform), full(uniform, 1, width + extra + 1)
    padded = kind().decide(delta, full(coordinate, 1, width + extra), first, second, np.array([width]))
    alone = kind().decide(
        delta[:, :width],
        full(coordinate, 1, width),
        first[:, :width],
        second[:, : width + 1],
        np.array([width]),
    )
    assert 0 <= int(padded.accepted[0]) <= width and math.isfinite(float(padded.shift[0]))
    assert padded.accepted == alone.accepted and padded.shift == alone.shift


@pytest.mark.parametrize("gap", (0.3, 1.5))
def test_two_steps_of_a_block_have_the_joint_distribution_of_the_target(gap):
    """Two drafts in a row, target N(0, 1) twice, draft means off by `gap` each: emitted pairs are independent standard
    normals. Where the block ends after the first draft, a fresh ordinary step follows. False alarm 1e-4."""
    n = 600_000
    delta, z = full(gap, n, 2), normals(n, 2, seed=3)
    decision = Block().decide(delta, z, uniforms(n, 2, seed=4), uniforms(n, 3, seed=5), np.full(n, 2))
    accepted, corrected = decision.accepted, decision.shift
    first = np.where(accepted >= 1, z[:, 0] - gap, z[:, 0] + corrected)
    second = np.where(accepted == 2, z[:, 1] - gap, np.where(accepted == 1, z[:, 1] + corrected, normals(n, seed=6)))
    for values in (first, second, (first + second) / 2**0.5, (first - second) / 2**0.5):
        assert stats.kstest(values, "norm").pvalue > 1e-4
    radius = first**2 + second**2
    assert stats.kstest(radius, stats.chi2(2).cdf).pvalue > 1e-4
    # The same with a mirrored noise in place of the residual is found out.
    mirrored = np.where(accepted == 2, z[:, 1] - gap, np.where(accepted == 1, -z[:, 1], normals(n, seed=6)))
    assert (
        min(
            stats.kstest((first + mirrored) / 2**0.5, "norm").pvalue,
            stats.kstest(mirrored, "norm").pvalue,
        )
        < 1e-8
    )
    assert np.isfinite(radius).all()
