"""Recycling: draft from unused evaluations of earlier rounds, with their noises kept.

Token-level verification does not look at the noises after the first rejection. If the next round keeps these noises,
its path lies close to the earlier drafts, and the network's output at those drafts is the best guess available. A
surrogate f of the network, fixed before sampling, carries it over the small distance:

    x0draft_n(y) = clip( f(y) + r + (r - r') ((y' - y'') . (y - y')) / (1.05 |y' - y''|^2) ),   r = x0(y') - f(y')

Here y' and y'' are the last two evaluated states at step n, and r, r' the surrogate's errors there (one Broyden pair).
Without an evaluation at step n, r = 0: the surrogate alone drafts the first round.

Why this is exact: a state at step n depends only on the noises of steps before n. The guess at n uses states at n or at
earlier steps, so it is independent of the noise that it will be coupled with. An evaluation at a step after n must
never be used: it depends on that noise.

The kept noises may also lead the path back onto the old one, whose states need no further evaluation: see `Rejoin`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specpolicy.samplers.recycled.rejoin import Rejoin
from specpolicy.samplers.recycled.surrogates.base import Surrogate, Tables
from specpolicy.samplers.rounds.batch import Batch, BatchWindow
from specpolicy.samplers.rounds.shared import cells
from specpolicy.samplers.speculative.coupling import TINY
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts, Known
from specpolicy.samplers.speculative.verifiers.base import Verdict

DAMPING = 1.05  # damping of the secant; 1 would trust it fully
STRIDE = 3  # stride of all sweeps but the last; halves drafting time and costs no network calls


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of earlier rounds at each step, for B chunks of K steps; d = H*D numbers each.

    Attributes:
        state: (B, K, d) last evaluated state.
        x0: (B, K, d) the network's x0 at this state.
        error: (B, K, d) error of the surrogate at this state.
        state_change: (B, K, d) difference of `state` from the evaluation before; zero if there is none.
        error_change: (B, K, d) difference of `error` from the evaluation before; zero if there is none.
        seen: (B, K, 1) 1 where there is any evaluation, else 0.
        reach: (B,) last step evaluated. All steps before it have been evaluated, because a round begins where the last
            one stopped.
        surrogate: the surrogate, on the chunks' device.
        tables: the surrogate's precomputed tables of the steps.
        features: the surrogate's precomputed features of the condition, or None.
        rounds: number of rounds so far.
    """

    state: Tensor
    x0: Tensor
    error: Tensor
    state_change: Tensor
    error_change: Tensor
    seen: Tensor
    reach: Tensor
    surrogate: Surrogate
    tables: Tables
    features: Tensor | None
    rounds: int = 0

    def keep(self, index: Tensor) -> "Evaluations":
        """Select rows."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {name: part[index] for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **tensors)


class RecycledDrafter(Drafter):
    """Drafts from recycled evaluations; one network call a round, for batches.

    It runs on the host, so on a GPU each sweep waits for the device.

    Args:
        surrogate: the surrogate f of the network.
        sweeps: how often the whole draft is made, in parallel over steps. Each sweep guesses x0 at the states of the
            previous one; guesses at step n depend only on earlier steps, as in a sequential walk.
        rejoin: lead paths back onto earlier ones, see `Rejoin`.
        stride: all sweeps but the last guess only at every `stride`-th step, by how much x0 differs there from the
            network's earlier output, and use the same difference for the steps after it.
    """

    name = "recycled"
    reuses_noise = True
    rejoining: type[Rejoin] = Rejoin

    def __init__(self, surrogate: Surrogate, sweeps: int = 4, rejoin: bool = True, stride: int = STRIDE):
        self.surrogate, self.sweeps, self.rejoin, self.stride = surrogate, sweeps, rejoin, stride

    def begin(self, problem: Batch) -> Evaluations:
        """See `Drafter.begin`."""
        batch, count = len(problem.rows), len(problem.chain)
        zeros = torch.zeros(batch, count, problem.shape.numel(), dtype=problem.dtype, device=problem.device)
        seen = torch.zeros(batch, count, 1, dtype=problem.dtype, device=problem.device)
        reach = torch.full((batch,), -1, device=problem.device)
        surrogate = self.surrogate.placed(problem.device, problem.dtype)
        features = surrogate.prepare(problem.cond)
        if features is not None:  # without a condition there is one row for all, but rows are dropped one by one
            features = features.expand(batch, -1)
        tables = surrogate.look_up(problem.timesteps)
        return Evaluations(zeros, zeros, zeros, zeros, zeros, seen, reach, surrogate, tables, features)

    def draft(self, memory: Evaluations, problem: Batch, window: BatchWindow) -> Drafts:
        """See `Drafter.draft`."""
        chain, drafts, stride = problem.chain, window.drafts, self.stride
        uniform = None
        if memory.rounds and self.rejoin:
            # Drawn in every round for all steps, so that a row's numbers do not depend on its neighbours.
            uniform = problem.source.uniform(len(chain), rows=torch.from_numpy(problem.rows))
        if not drafts:
            return Drafts(window.root[:, None], window.noise[:, :0])
        steps, noise = window.index(0, drafts), window.noise[:, :drafts]
        shocks = chain.shock(noise, steps)
        # The network's earlier output at each step; beyond the last evaluated step, the output there.
        stale = memory.x0[cells(torch.minimum(window.steps[:, :drafts], memory.reach[:, None].clamp(min=0)))]
        guess, guess_some = (self._guess(memory, window, columns) for columns in (1, stride))

        def guess_coarsely(states: Tensor) -> Tensor:
            moved = guess_some(states[:, ::stride]) - stale[:, ::stride]
            return stale + moved.repeat_interleave(stride, dim=1)[:, :drafts]

        rejoin = None if uniform is None else self._rejoin(memory, problem, window, uniform)

        def lay_out(x0: Tensor) -> "_Path":
            drift = chain.drift(x0, steps)
            if rejoin is None:
                return _Path(chain.rollout(window.root, drift + shocks, steps))
            walk = rejoin(drift.flatten(2).cpu().double().numpy())
            states, noise = (torch.from_numpy(part).to(drift).view_as(drift) for part in (walk.states, walk.noise))
            return _Path(states, noise, walk.joined)

        first = stale if memory.rounds else guess_coarsely(window.root.flatten(1)[:, None].expand(-1, drafts, -1))
        x0 = chain.clip(first).view_as(shocks)
        for left in range(self.sweeps - 1, -1, -1):
            before = torch.cat([window.root[:, None], lay_out(x0).states[:, :-1]], dim=1).flatten(2)
            x0 = chain.clip(guess_coarsely(before) if left else guess(before)).view_as(shocks)
        path = lay_out(x0)
        states = torch.cat([window.root[:, None], path.states], dim=1)
        if path.joined is None:
            return Drafts(states, x0)
        # On the old path the walk took the network's own steps.
        mask = np.pad(path.joined, ((0, 0), (1, 0)))
        stood = torch.from_numpy(mask[:, :-1].copy()).to(problem.device)[..., None, None]
        x0 = torch.where(stood, memory.x0[cells(steps)].view_as(shocks), x0)
        known = memory.x0[cells(window.index())].view_as(states)
        return Drafts(states, x0, Known(mask, known), path.noise)

    def _guess(self, memory: Evaluations, window: BatchWindow, stride: int) -> Callable[[Tensor], Tensor]:
        """Return a function from states (B, n, d) to x0, unclipped, at every `stride`-th draft."""
        steps = window.index(0, window.drafts)
        steps = slice(steps.start, steps.stop, stride) if isinstance(steps, slice) else steps[:, ::stride]
        at = cells(steps)
        state, error, change = (part[at] for part in (memory.state, memory.error, memory.state_change))
        secant = memory.error_change[at] / (DAMPING * change.square().sum(-1, keepdim=True)).clamp(min=TINY)
        surrogate = memory.surrogate.at(tuple(table[steps] for table in memory.tables), memory.features)

        def guess(states: Tensor) -> Tensor:
            return surrogate(states) + error + secant * (change * (states - state)).sum(-1, keepdim=True)

        return guess

    def _rejoin(self, memory: Evaluations, problem: Batch, window: BatchWindow, uniform: Tensor) -> Rejoin:
        """Prepare how the paths of this round may rejoin those of the last, with uniform numbers (B, K)."""
        chain, steps = problem.chain, window.index(0, window.drafts)
        met = window.steps[:, 1:] <= memory.reach[:, None]
        if window.valid is not None:
            met = met & torch.from_numpy(window.valid[:, 1:]).to(problem.device)
        drift = chain.drift(memory.x0[cells(steps)].unflatten(-1, problem.shape), steps)
        at = window.steps[:, :-1].cpu()
        old = memory.state[cells(window.index())]
        parts = (window.root.flatten(1), old, drift.flatten(2), window.noise[:, :-1].flatten(2))
        tables = (chain.state_weight[at], chain.sigma[at])
        numbers: list[Any] = [part.cpu().double().numpy() for part in (*parts, *tables)]
        numbers += [met.cpu().numpy(), uniform[cells(steps)].cpu().numpy()]
        return self.rejoining(*numbers)

    def learn(
        self, memory: Evaluations, problem: Batch, window: BatchWindow, drafts: Drafts, x0: Tensor, verdict: Verdict
    ) -> Evaluations:
        """See `Drafter.learn`."""
        valid = np.ones(window.steps.shape, bool) if window.valid is None else window.valid
        reach = torch.maximum(memory.reach, window.steps[:, 0] + torch.from_numpy(window.width).to(problem.device))
        new = valid if drafts.known is None else valid & ~drafts.known.mask
        # A row goes on after the last state it took. After a full draft it still needs the last, furthest evaluation.
        new = new & (np.arange(window.drafts + 1) >= np.minimum(verdict.accepted + 1, window.width)[:, None])
        row, column = (torch.from_numpy(part).to(problem.device) for part in new.nonzero())
        tables = tuple(table[window.steps] for table in memory.tables)
        states, x0 = drafts.states.flatten(2), x0.flatten(2)
        error = x0 - memory.surrogate.at(tables, memory.features)(states)
        at = row, window.steps[row, column]
        states, x0, error = (part[row, column] for part in (states, x0, error))
        again = memory.seen[at]
        return replace(
            memory,
            state=memory.state.index_put(at, states),
            x0=memory.x0.index_put(at, x0),
            error=memory.error.index_put(at, error),
            state_change=memory.state_change.index_put(at, (states - memory.state[at]) * again),
            error_change=memory.error_change.index_put(at, (error - memory.error[at]) * again),
            seen=memory.seen.index_put(at, torch.ones_like(again)),
            reach=reach,
            rounds=memory.rounds + 1,
        )

    def keep(self, memory: Evaluations, index: Tensor) -> Evaluations:
        """See `Drafter.keep`."""
        return memory.keep(index)


@dataclass(frozen=True)
class _Path:
    """A drafted path.

    Attributes:
        states: (B, W, H, D).
        noise: (B, W, H, D) its noise, for a path that may have rejoined an earlier one; else None.
        joined: (B, W) bool on the host, where it is on the earlier path; None if it cannot be.
    """

    states: Tensor
    noise: Tensor | None = None
    joined: np.ndarray | None = None
