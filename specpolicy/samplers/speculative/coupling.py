"""The one coordinate in which two Gaussians with the same covariance differ, and laws on it.

Draft N(m_p, s^2 I) and target N(m_q, s^2 I): delta = |m_q - m_p| / s, e the unit vector from m_p to m_q, and
S = e.z the coordinate of the drafted state m_p + s z. Orthogonal to e both laws are the same, so every verifier
decides on (delta, S) alone (De Bortoli et al. 2025, section 3; Soen et al. 2026, section 3).
"""

import math

import torch
from torch import Tensor

TINY = 1e-12  # below this gap two means are the same: accept, and divide by nothing


def gaps(difference: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """(delta, S), each (B, W) float64, from (m_q - m_p) / s and z, both (B, W, H, D)."""
    # Float64 where the device has it: log ratios of small gaps are differences of nearly equal numbers.
    dtype = torch.float64 if difference.device.type != "mps" else torch.float32
    difference, noise = difference.flatten(2).to(dtype), noise.flatten(2).to(dtype)
    delta = torch.linalg.vector_norm(difference, dim=-1)
    return delta, (difference * noise).sum(-1) / delta.clamp(min=TINY)


def log_ratio(delta: Tensor, coordinate: Tensor) -> Tensor:
    """log q/p of a drafted state."""
    return delta * coordinate - delta.square() / 2


def residual_mass(log_p: Tensor, delta: Tensor) -> Tensor:
    """R(p, delta) = integral of max(p q - p_draft, 0), for p <= 1 (Soen et al. 2026, block verification)."""
    safe = delta.clamp(min=TINY)
    shift = log_p / safe
    mass = log_p.exp() * torch.special.ndtr(safe / 2 + shift) - torch.special.ndtr(shift - safe / 2)
    return torch.where(delta > TINY, mass.clamp(min=0), torch.zeros_like(mass))


def draw_residual(log_p: Tensor, delta: Tensor, uniform: Tensor, iterations: int = 60) -> Tensor:
    """Draw S - delta from the density proportional to max(p phi(S - delta) - phi(S), 0), by inverting its tail.

    All (N,) float64. The tail p Q(t) - Q(t + delta) at t = S - delta falls from R(p, delta) at its zero
    t0 = -delta/2 - ln(p)/delta, where Q = 1 - Phi.
    """
    safe = delta.clamp(min=TINY)
    # Below -40 the target has no mass: however huge the gap, the interval that is halved stays short.
    low = (-safe / 2 - log_p / safe).clamp(min=-40.0)
    wanted = torch.log1p(-uniform) + _log_tail(low, log_p, safe)
    high = torch.maximum(low, torch.zeros_like(low)) + 40.0
    for _ in range(iterations):
        middle = (low + high) / 2
        above = _log_tail(middle, log_p, safe) > wanted
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def _log_tail(t: Tensor, log_p: Tensor, delta: Tensor) -> Tensor:
    """log of p Q(t) - Q(t + delta), exact also far out, where both tails underflow."""
    first = log_p + torch.special.log_ndtr(-t)
    second = torch.special.log_ndtr(-t - delta)
    return first + torch.log(-torch.expm1(torch.clamp(second - first, max=-math.ulp(1.0))))
