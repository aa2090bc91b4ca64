"""Rejoining: lead a new path back onto the one drafted before, whose states have been evaluated already.

Behind a rejection the noises z of the old path were never looked at, so that given all that came before step n they
are independent standard normals, and so is whatever a map that keeps that law makes of them. With m the mean of the
new draft at step n and y', M = y' - sigma z the old draft behind it and its mean, draw

    m + sigma z'  from the maximal coupling with y':   y' itself with probability min(1, N(y'; m) / N(y'; M)),
                                                       else z' = z mirrored in the direction from M to m

(the reflection coupling that also verifies drafts, section 2 of De Bortoli et al. 2025, here between two paths). Where
the new path meets the old one its state is known, with what the network said there: the next draft is the network's
own step, which cannot be rejected, and no row has to be evaluated. Where it does not, mirrored noises lead it back.

Each such decision takes a uniform number of its own, drawn anew in every round. m, M and the state at step n hold the
noises of earlier steps only, so the draft at n still knows nothing of the noise that it will be coupled with.

All is measured from the old path: with y = y'_n + d the new state, u = m - M = A_n d + drift + A_n y'_n - M, the next
difference is c u, where c = 0 for a path that rejoins and 1 - 2 sigma (u.z) / |u|^2 for a mirrored one. So a step is a
scalar decision and a few products of vectors; it runs in numpy, in float64, because no operation of torch is as short.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.speculative.coupling import TINY

Floats = np.ndarray  # float64, or bool


@dataclass
class Walk:
    """A path (B, W): the `states` after each step and the `noise` that leads there, (B, W, H, D), and whether that
    state is the one of the old path, `joined` (B, W) bool on the CPU."""

    states: Tensor
    noise: Tensor
    joined: Tensor


class Rejoin:
    """Walks of one round that may rejoin the old path.

    root: (B, H, D). old: (B, W+1, H*D) states of the old path at the window's steps and the one behind, zero where it
    had none; x0: (B, W, H*D) the network's x0 there. noise: (B, W, H, D) of the old path, where it went on.
    met: (B, W) bool on the CPU, where the old path's next state was evaluated, so that it may be rejoined. uniform:
    (B, W) float64 on the CPU.
    """

    def __init__(
        self,
        chain: GaussianChain,
        steps: slice | Tensor,
        root: Tensor,
        old: Tensor,
        x0: Tensor,
        noise: Tensor,
        met: Tensor,
        uniform: Tensor,
    ):
        self.like, self.noise = root, _numbers(noise.flatten(2))
        self.old = _numbers(old)
        shape = noise.shape[:2]
        at = steps.cpu() if isinstance(steps, Tensor) else steps
        tables = (chain.state_weight, chain.sigma)
        self.weight, self.sigma = (np.broadcast_to(table[at].numpy(), shape) for table in tables)
        self.met, self.chance = met.numpy(), np.log1p(-uniform.numpy())
        # Mean and next state of the old path differ by its noise: a walk with drift g differs by A d + g + base.
        self.base = self.weight[..., None] * self.old[:, :-1] - self.old[:, 1:] + self.sigma[..., None] * self.noise
        self.known = _numbers(chain.drift(x0.view_as(noise), steps).flatten(2)) + self.base
        self.start = _numbers(root.flatten(1)) - self.old[:, 0]
        # On the old path all is known beforehand: whether a walk stays there, and from each step where it leaves.
        stays, self.shares = self.decide(self.known, self.noise, self.sigma, self.met, self.chance)
        left = np.where(stays[0], len(stays[0]), np.arange(len(stays[0])))
        self.leaves = np.minimum.accumulate(left[::-1])[::-1].tolist()

    def __call__(self, drift: Tensor) -> Walk:
        """The walk with guesses that add `drift` (B, W, H, D); on the old path, with what the network says there."""
        gaps = _numbers(drift.flatten(2)) + self.base
        moved, share, joined = (self._walk_one if len(gaps) == 1 else self._walk_all)(gaps)
        states = self.old[:, 1:] + share[..., None] * moved
        # The same next state is u + sigma z' behind M: what c takes off u is the change of the noise.
        off = np.divide(1 - share, self.sigma, out=np.zeros_like(share), where=share != 1)
        noise = self.noise - off[..., None] * moved
        shape = drift.shape
        return Walk(self._tensor(states).view(shape), self._tensor(noise).view(shape), torch.from_numpy(joined))

    @staticmethod
    def decide(moved: Floats, noise: Floats, sigma: Floats, met: Floats, chance: Floats) -> tuple[Floats, Floats]:
        """Whether walks whose means are `moved` (..., d) from the old path's rejoin it (...), and c (...)."""
        square, along = _dot(moved, moved), _dot(moved, noise)
        with np.errstate(divide="ignore", invalid="ignore"):  # where there is no old path
            joined = met & ((chance <= along / sigma - 0.5 * square / sigma**2) | (square <= (TINY * sigma) ** 2))
            share = np.where(met, 1 - 2 * sigma * along / square, 1.0)
        return joined, np.where(joined, 0.0, share)

    def _walk_one(self, gaps: Floats) -> tuple[Floats, Floats, Floats]:
        """(u (1, W, d), c (1, W), joined (1, W)) of one row. The case that must be fast: scalars are Python's, and a
        walk on the old path runs along it to where it leaves it, which is known beforehand."""
        count = gaps.shape[1]
        moved, shares, joined = np.empty_like(gaps), np.ones((1, count)), np.zeros((1, count), dtype=bool)
        rows, known, noise = moved[0], self.known[0], self.noise[0]
        weight, sigma, met, chance = (part[0].tolist() for part in (self.weight, self.sigma, self.met, self.chance))
        difference, share, step, on_old = self.start[0], 1.0, 0, False
        while step < count:
            if on_old:
                left = self.leaves[step]
                rows[step : left + 1] = known[step : left + 1]
                shares[0, step:left], joined[0, step:left] = 0.0, True
                if left == count:
                    break
                difference, share, on_old = known[left], float(self.shares[0, left]), False
                shares[0, left], step = share, left + 1
                continue
            row = rows[step]
            np.multiply(difference, weight[step] * share, out=row)
            row += gaps[0, step]
            difference, share = row, 1.0
            if met[step]:
                square, along, scale = float(row.dot(row)), float(row.dot(noise[step])), sigma[step]
                if chance[step] <= along / scale - 0.5 * square / scale**2 or square <= (TINY * scale) ** 2:
                    share, on_old, joined[0, step] = 0.0, True, True
                else:
                    share = 1.0 - 2.0 * scale * along / square
            shares[0, step] = share
            step += 1
        return moved, shares, joined

    def _walk_all(self, gaps: Floats) -> tuple[Floats, Floats, Floats]:
        """The same for all rows of a batch at once, step by step."""
        moved, shares, joined = np.empty_like(gaps), np.empty(gaps.shape[:2]), np.empty(gaps.shape[:2], dtype=bool)
        difference, on_old = self.start, np.zeros(len(gaps), dtype=bool)
        for step in range(gaps.shape[1]):
            row = self.weight[:, step, None] * difference + gaps[:, step]
            row = np.where(on_old[:, None], self.known[:, step], row)
            at = (part[:, step] for part in (self.noise, self.sigma, self.met, self.chance))
            on_old, share = self.decide(row, *at)
            moved[:, step], shares[:, step], joined[:, step], difference = row, share, on_old, share[:, None] * row
        return moved, shares, joined

    def _tensor(self, numbers: Floats) -> Tensor:
        return torch.from_numpy(numbers).to(self.like)


def _dot(one: Floats, other: Floats) -> Floats:
    return np.einsum("...d,...d->...", one, other)


def _numbers(values: Tensor) -> Floats:
    return values.cpu().double().numpy()
