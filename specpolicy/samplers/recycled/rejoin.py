"""Rejoining: lead a new path back onto the previous draft, whose states have already been evaluated.

After a rejection the noises z of the old path were never looked at. Given all that came before step n they are
independent standard normals, and they stay so under any map that keeps that distribution. Let m be the mean of the new
draft at step n, y' the old draft and M = y' - sigma z its mean. Draw

    m + sigma z'  from the maximal coupling with y':   y' itself with probability min(1, N(y'; m) / N(y'; M)),
                                                       else z' = z mirrored in the direction from M to m

(the reflection coupling that also verifies drafts, section 2 of De Bortoli et al. 2025, here between two paths). Where
the new path meets the old one, the network's output is known. The next draft is then the network's own step, which
cannot be rejected, and no row has to be evaluated. Elsewhere, mirrored noises lead the path back.

Each decision takes its own uniform number, drawn anew in every round. m, M and the state at step n hold the noises of
earlier steps only, so the draft at n still does not know the noise that it will be coupled with.

Everything is measured from the old path. With y = y'_n + d the new state and u = m - M = A_n d + drift + A_n y'_n - M,
the next difference is c u, where c = 0 for a path that rejoins and 1 - 2 sigma (u.z) / |u|^2 for a mirrored one. So a
step is a scalar decision and a few products of vectors, in float64, one after the other. numba runs it where it is
installed.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from specpolicy.samplers.speculative.coupling import TINY, Floats

SIGNATURE = (
    "void(f8[:,::1],f8[:,:,::1],f8[:,:,::1],f8[:,:,::1],f8[:,::1],f8[:,::1],b1[:,::1],f8[:,::1],"
    "f8[:,:,::1],f8[:,::1],b1[:,::1])"
)


@dataclass(frozen=True)
class Walk:
    """Paths: the `states` after each step, the `noise` that leads there, (B, W, d), and whether each state is on the
    old path, `joined` (B, W)."""

    states: Floats
    noise: Floats
    joined: np.ndarray


class Rejoin:
    """Walks of one round that may rejoin the old paths.

    Args:
        root: (B, d).
        old: (B, W+1, d) states of the old path at the drafted steps and the one after, zero where it had none.
        drift: (B, W, d) contribution of the network's x0 there.
        noise: (B, W, d) of the old path, where it went on.
        weight, sigma: (B, W) of the chain's steps.
        met: (B, W) bool, where the old path's next state was evaluated, so that it may be rejoined.
        uniform: (B, W) in [0, 1).
    """

    def __init__(
        self,
        root: Floats,
        old: Floats,
        drift: Floats,
        noise: Floats,
        weight: Floats,
        sigma: Floats,
        met: np.ndarray,
        uniform: Floats,
    ):
        self.old, self.noise, self.sigma, self.met = old, noise, sigma, met
        # The old path's mean and next state differ by its noise: a walk with drift g differs by A d + g + base.
        self.base = weight[..., None] * old[:, :-1] - old[:, 1:] + sigma[..., None] * noise
        fixed = (root - old[:, 0], drift + self.base, noise, weight, sigma, met, np.log1p(-uniform))
        self.start, *self.fixed = (np.ascontiguousarray(part) for part in fixed)

    def __call__(self, drift: Floats) -> Walk:
        """Walk with guesses that add `drift` (B, W, d); on the old path, with the network's output there."""
        moved, share, joined = np.empty(drift.shape), np.empty(drift.shape[:2]), np.empty(drift.shape[:2], np.bool_)
        self.walk(self.start, drift + self.base, *self.fixed, moved, share, joined)
        states = self.old[:, 1:] + share[..., None] * moved
        # The same next state is u + sigma z' after M: the noise changes by what c takes off u.
        off = np.divide(1 - share, self.sigma, out=np.zeros_like(share), where=share != 1)
        return Walk(states, self.noise - off[..., None] * moved, joined)

    @property
    def walk(self) -> Callable[..., None]:
        """Return the function that writes u into `moved` (B, W, d), c into `share` (B, W), and the rejoining steps into
        `joined` (B, W)."""
        return quick_walk()


@functools.cache
def quick_walk() -> Callable[..., None]:
    """Return the walk, compiled where numba is installed. It is compiled by its signature and kept on disk, so no
    control step ever waits for a compiler."""
    try:
        import numba
    except ImportError:
        return walk_together
    try:
        compiled: Callable[..., None] = numba.njit(SIGNATURE, cache=True, nogil=True)(walk_row_by_row)
    except RuntimeError:  # no place to keep it: neither beside this file nor in the user's cache
        compiled = numba.njit(SIGNATURE, nogil=True)(walk_row_by_row)
    return compiled


def walk_row_by_row(start, gaps, known, noise, weight, sigma, met, chance, moved, share, joined):  # type: ignore[no-untyped-def]
    """See `Rejoin.walk`; for numba."""
    for row in range(len(gaps)):
        difference, scale, on_old = start[row], 1.0, False
        for step in range(gaps.shape[1]):
            here, square, along = moved[row, step], 0.0, 0.0
            factor, z = weight[row, step] * scale, noise[row, step]
            for place in range(len(here)):
                here[place] = known[row, step, place] if on_old else gaps[row, step, place] + factor * difference[place]
                square += here[place] * here[place]
                along += here[place] * z[place]
            difference, scale, on_old = here, 1.0, False
            if met[row, step]:
                unit = sigma[row, step]
                if chance[row, step] <= along / unit - 0.5 * square / unit**2 or square <= (TINY * unit) ** 2:
                    scale, on_old = 0.0, True
                else:
                    scale = 1.0 - 2.0 * unit * along / square
            share[row, step], joined[row, step] = scale, on_old


def walk_together(start, gaps, known, noise, weight, sigma, met, chance, moved, share, joined):  # type: ignore[no-untyped-def]
    """See `Rejoin.walk`; for numpy, all rows at once."""
    difference, on_old = start, np.zeros((len(gaps), 1), bool)
    for step in range(gaps.shape[1]):
        row = np.where(on_old, known[:, step], gaps[:, step] + weight[:, step, None] * difference)
        square, along = np.einsum("bd,bd->b", row, row), np.einsum("bd,bd->b", row, noise[:, step])
        unit = sigma[:, step]
        with np.errstate(divide="ignore", invalid="ignore"):  # where there is no old path
            close = chance[:, step] <= along / unit - 0.5 * square / unit**2
            joins = met[:, step] & (close | (square <= (TINY * unit) ** 2))
            scale = np.where(met[:, step], 1.0 - 2.0 * unit * along / square, 1.0)
        scale = np.where(joins, 0.0, scale)
        moved[:, step], share[:, step], joined[:, step] = row, scale, joins
        difference, on_old = scale[:, None] * row, joins[:, None]
