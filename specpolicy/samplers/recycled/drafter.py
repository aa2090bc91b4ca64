"""Recycling: draft from evaluations of earlier rounds that were not used, with their noises kept.

Under token-level verification the noises after the first rejection were never looked at. With the same noises the path
of the next round lies close to the previous drafts, and the network's output there is the best guess available. A
surrogate f of the network, fixed before sampling, carries it over the small distance:

    x0draft_n(y) = clip( f(y) + r + (r - r') ((y' - y'') . (y - y')) / (1.05 |y' - y''|^2) ),   r = x0(y') - f(y')

Here y' and y'' are the last two evaluated states at the same step n, and r, r' the surrogate's errors there (one
Broyden pair). Without any evaluation at n, r = 0: the surrogate alone drafts the first round.

Why it is exact: a state at step n holds the noises of steps before n only. The guess at n uses states at n or at
earlier steps only, so it does not know the noise it will be coupled with. Never use an evaluation at a step after n: it
has seen that noise.

The kept noises may also lead the path back onto the old one, whose states need no evaluation any more: see `Rejoin`.
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

DAMPING = 1.05  # of the secant: 1 would trust it fully
STRIDE = 3  # of all sweeps but the last: halves the time of drafting and costs no calls


@dataclass(frozen=True)
class Evaluations:
    """Knowledge at each step, (B, K, H*D) each.

    `state`: the last evaluated one. `x0` of the network and `error` of the surrogate there. `state_change` and
    `error_change`: their differences from the evaluation before, zero where there is none. `seen` (B, K, 1): 1 where
    there is any evaluation, else 0. `reach` (B,): the last step evaluated; all before it have been, because a round
    begins where the last one stopped. `surrogate`: on the chunks' device. `tables`, `features`: its preparation of the
    steps and of the condition. `rounds`: so far.
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
    """Drafter with one call a round, for batches.

    `sweeps`: how often the whole draft is made anew, in parallel. Each sweep guesses x0 at the states of the previous
    one; guesses at step n depend on earlier steps only, as in a sequential walk. `stride`: all sweeps but the last
    guess only at every so many steps, by how much x0 differs there from the network's output, and hold that for the
    steps after it. `rejoin`: lead paths back onto earlier ones, see `Rejoin`. It runs on the host, so on a GPU each
    sweep waits for the device.
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
        if features is not None:  # without a condition one row serves all; rows are dropped one by one
            features = features.expand(batch, -1)
        tables = surrogate.look_up(problem.timesteps)
        return Evaluations(zeros, zeros, zeros, zeros, zeros, seen, reach, surrogate, tables, features)

    def draft(self, memory: Evaluations, problem: Batch, window: BatchWindow) -> Drafts:
        """See `Drafter.draft`."""
        chain, drafts, stride = problem.chain, window.drafts, self.stride
        uniform = None
        if memory.rounds and self.rejoin:
            # In every round, for all steps: a row's draws must not depend on its neighbours.
            uniform = problem.source.uniform(len(chain), rows=torch.from_numpy(problem.rows))
        if not drafts:
            return Drafts(window.root[:, None], window.noise[:, :0])
        steps, noise = window.index(0, drafts), window.noise[:, :drafts]
        shocks = chain.shock(noise, steps)
        # The network's output at each step; after the last step evaluated, its output there.
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
        # Where the walk was on the old path it took the network's own step.
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
        """Set up how the paths of this round may rejoin those of the last, with uniform numbers (B, K)."""
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
        # A row goes on after the state it took last. After a full draft it still needs the last, furthest evaluation.
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
    """States (B, W, H, D); for a path that may have rejoined, also its noise and where it did, (B, W) on the host."""

    states: Tensor
    noise: Tensor | None = None
    joined: np.ndarray | None = None
