"""The one coordinate in which two Gaussians differ: gaps, residual masses and residual draws against integrals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from specpolicy.samplers.rounds.shared import along_gaps
from specpolicy.samplers.speculative.coupling import FEW, TINY, draw_residual, log_ratio, residual_mass

DELTAS = (1e-6, 1e-3, 0.1, 1.0, 3.0, 12.0)
SHARES = (1.0, 0.999, 0.5, 0.02, 1e-6)  # p_tau
# Beyond this edge the residual has a mass below 1e-200: it is never drawn from.
LAWS = [(p, delta) for p in SHARES for delta in DELTAS if -delta / 2 - math.log(p) / delta < 30]


def residual_distribution(p, delta):
    """max(p phi(s - delta) - phi(s), 0) up to a factor, as a function of x = s - start, and start and the last x.

    Written as p phi(s - delta) (1 - exp(-log ratio)), so that neither small gaps nor far tails lose digits.
    """
    start = delta / 2 - math.log(p) / delta
    edge = start - delta  # in the target's own coordinate

    def density(x):
        exponent = edge * x + x**2 / 2 if edge > 0 else (edge + x) ** 2 / 2
        return np.exp(-exponent) * -np.expm1(-delta * x)

    return density, start, max(-edge, 0) + min(12.0, 60 / max(edge, 1e-9))


def integral(density, end):
    return integrate.quad(density, 0, end, epsabs=0, epsrel=1e-10, limit=300)[0]


def array(*values):
    return np.array(values)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_gaps_are_the_length_of_the_difference_and_the_noise_along_it(dtype):
    generator = torch.Generator().manual_seed(0)
    difference, noise = (torch.randn(3, 5, 4, 2, generator=generator, dtype=dtype) for _ in range(2))
    delta, coordinate = along_gaps(difference, noise)
    assert delta.dtype == coordinate.dtype == torch.float64
    for row in range(3):
        for draft in range(5):
            gap, z = difference[row, draft].double(), noise[row, draft].double()
            assert float(delta[row, draft]) == pytest.approx(float(gap.norm()), rel=1e-12)
            assert float(coordinate[row, draft]) == pytest.approx(float((gap / gap.norm() * z).sum()), rel=1e-9)


def test_no_gap_divides_by_nothing():
    delta, coordinate = along_gaps(torch.zeros(1, 2, 3, 1), torch.randn(1, 2, 3, 1))
    assert torch.equal(delta, torch.zeros(1, 2, dtype=torch.float64)) and torch.equal(coordinate, delta)


@given(st.floats(0, 40), st.floats(-9, 9))
def test_the_log_ratio_is_that_of_the_densities(delta, s):
    expected = stats.norm.logpdf(s - delta) - stats.norm.logpdf(s)
    assert float(log_ratio(array(delta), array(s))[0]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("p, delta", LAWS)
def test_the_residual_mass_is_its_integral(p, delta):
    density, start, end = residual_distribution(p, delta)
    factor = p * math.exp(-(max(start - delta, 0) ** 2) / 2) / math.sqrt(2 * math.pi)
    expected = factor * integral(density, end)
    assert float(residual_mass(array(math.log(p)), array(delta))[0]) == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_the_residual_mass_of_equal_distributions_is_zero():
    assert residual_mass(array(0.0, -1.0, 0.0), array(0.0, 0.0, TINY / 2)).tolist() == [0, 0, 0]


@given(st.floats(-50, 0), st.floats(0, 60))
def test_the_residual_mass_lies_where_a_mass_can_lie(log_p, delta):
    """Between p - 1 and p, from above; and all that is wanted beyond the draft's mass is in it."""
    mass = float(residual_mass(array(log_p), array(delta))[0])
    assert 0 <= mass <= math.exp(log_p) + 1e-15
    if log_p == 0:  # then it is the chance of a rejection
        assert mass == pytest.approx(1 - 2 * stats.norm.cdf(-delta / 2), abs=1e-12)


@pytest.mark.parametrize("p, delta", LAWS)
def test_the_residual_draw_inverts_the_integral_of_its_density(p, delta):
    density, start, end = residual_distribution(p, delta)
    uniform = np.array([0.001, 0.1, 0.5, 0.9, 0.999])
    shares, gaps = np.full_like(uniform, math.log(p)), np.full_like(uniform, delta)
    drawn = draw_residual(shares, gaps, uniform) + delta - start
    total = integral(density, end)
    for x, u in zip(drawn.tolist(), uniform.tolist(), strict=True):
        assert integral(density, x) / total == pytest.approx(u, abs=1e-6)


def test_the_residual_draw_has_the_distribution_of_what_is_left_of_the_target():
    """20,000 draws against the density's distribution function, KS, false alarm 1e-4; the same draws moved by 0.05
    are found out."""
    delta, log_p = 0.8, math.log(0.6)
    uniform = np.random.default_rng(1).random(20_000)
    density, start, end = residual_distribution(0.6, delta)
    drawn = draw_residual(np.full_like(uniform, log_p), np.full_like(uniform, delta), uniform) + delta - start
    grid = np.linspace(0, end, 20_001)
    cdf = integrate.cumulative_simpson(density(grid), x=grid, initial=0)
    cdf /= cdf[-1]
    assert stats.kstest(drawn, lambda s: np.interp(s, grid, cdf)).pvalue > 1e-4
    assert stats.kstest(drawn + 0.05, lambda s: np.interp(s, grid, cdf)).pvalue < 1e-4


@given(
    log_p=st.floats(-700, 0),
    delta=st.floats(1e-9, 1e4),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_the_residual_draw_is_finite_and_right_of_its_edge_even_in_the_far_tail(log_p, delta, uniform):
    drawn = float(draw_residual(array(log_p), array(delta), array(uniform))[0])
    edge = -delta / 2 - log_p / delta
    assert math.isfinite(drawn)
    assert edge - 1e-6 * abs(edge) - 1e-9 <= drawn <= max(edge, 0) + 40


@given(
    log_p=st.floats(-300, 0),
    delta=st.floats(1e-3, 1e3),
    uniform=st.floats(1e-6, 1 - 1e-9),
)
def test_one_number_is_drawn_as_many_are(log_p, delta, uniform):
    """A few are solved for as scalars, by another formula of the tail."""
    many = FEW + 1
    alone = draw_residual(array(log_p), array(delta), array(uniform))
    together = draw_residual(np.full(many, log_p), np.full(many, delta), np.full(many, uniform))
    np.testing.assert_allclose(together, alone[0], rtol=1e-7, atol=1e-7)
