"""The one coordinate in which two Gaussians with the same covariance differ, and densities on it.

Draft N(m_p, s^2 I) and target N(m_q, s^2 I): delta = |m_q - m_p| / s, e the unit vector from m_p to m_q, and
S = e.z the coordinate of the drafted state m_p + s z. Orthogonal to e both distributions are the same, so every
verifier decides on (delta, S) alone (De Bortoli et al. 2025, section 3; Soen et al. 2026, section 3).

All in float64: log ratios of small gaps are differences of nearly equal numbers.
"""

import math

import numpy as np
import torch

Floats = np.ndarray  # float64

TINY = 1e-12  # below this gap two means are the same: accept, and avoid dividing by zero
HALVINGS = 60  # of an interval of 80 at most, to the last digit
FEW = 4  # up to this many numbers scalars are faster than arrays


def log_ratio(delta: Floats, coordinate: Floats) -> Floats:
    """Return log q/p of a drafted state."""
    return delta * coordinate - 0.5 * delta**2


def residual_mass(log_p: Floats, delta: Floats) -> Floats:
    """Return R(p, delta) = integral of max(p q - p_draft, 0), for p <= 1 (Soen et al. 2026, block verification)."""
    safe = np.maximum(delta, TINY)
    shift = log_p / safe
    mass = np.exp(log_p) * normal_cdf(safe / 2 + shift) - normal_cdf(shift - safe / 2)
    return np.where(delta > TINY, np.maximum(mass, 0.0), 0.0)


def normal_cdf(values: Floats) -> Floats:
    """The standard normal distribution function, Phi."""
    return torch.special.ndtr(torch.from_numpy(values)).numpy()


def draw_residual(log_p: Floats, delta: Floats, uniform: Floats) -> Floats:
    """Draw S - delta, each (N,), from the density proportional to max(p phi(S - delta) - phi(S), 0).

    Inverts the tail p Q(t) - Q(t + delta) at t = S - delta, with Q = 1 - Phi. The tail falls from R(p, delta) at the
    zero of the density, t0 = -delta/2 - ln(p)/delta.
    """
    delta = np.maximum(delta, TINY)
    # Below -40 the target has no mass, so the search interval stays short for any gap.
    low = np.maximum(-delta / 2 - log_p / delta, -40.0)
    if len(low) > FEW:
        return _solve_all(low, log_p, delta, uniform)
    every = zip(low.tolist(), log_p.tolist(), delta.tolist(), uniform.tolist(), strict=True)
    return np.array([_solve(*one) for one in every])


def _solve(low: float, log_p: float, delta: float, uniform: float) -> float:
    """Solve for one number, the common case for one chunk; a scalar is faster than an array of one."""

    def log_tail(t: float) -> float:
        first, second = log_p + _log_q(t), _log_q(t + delta)
        return first + math.log(-math.expm1(min(second - first, -math.ulp(1.0))))

    wanted, high = math.log1p(-uniform) + log_tail(low), max(low, 0.0) + 40.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if log_tail(middle) > wanted else (low, middle)
    return (low + high) / 2


def _log_q(t: float) -> float:
    """Return log of Q(t) = 1 - Phi(t)."""
    if t < 25.0:
        return math.log(0.5 * math.erfc(t / math.sqrt(2.0)))
    # Far out erfc underflows: Q(t) = phi(t) / (t + 1 / (t + 2 / (t + 3 / ...))), Laplace's continued fraction.
    denominator = t
    for number in range(12, 0, -1):
        denominator = t + number / denominator
    return -0.5 * t * t - 0.5 * math.log(2.0 * math.pi) - math.log(denominator)


def _solve_all(low: Floats, log_p: Floats, delta: Floats, uniform: Floats) -> Floats:
    """Solve for many numbers at once."""

    def log_tail(t: Floats) -> Floats:
        first, second = (torch.special.log_ndtr(torch.from_numpy(-each)).numpy() for each in (t, t + delta))
        first = log_p + first
        return first + np.log(-np.expm1(np.minimum(second - first, -math.ulp(1.0))))

    wanted, high = np.log1p(-uniform) + log_tail(low), np.maximum(low, 0.0) + 40.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = log_tail(middle) > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
