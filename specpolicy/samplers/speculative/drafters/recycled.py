"""Recycling: draft from evaluations that the last rounds paid for and did not use, with their noises kept.

Under token-level verification the noises behind the first rejection were never looked at. With the same noises the
path of the next round lies close to the drafted states of the last one, and what the network said there is the best
guess at hand. A surrogate f of the network, fixed before sampling, carries it over the small distance:

    x0draft_n(y) = clip( f(y) + r + (r - r') ((y' - y'') . (y - y')) / (1.05 |y' - y''|^2) ),   r = x0(y') - f(y')

where y' and y'' are the last two evaluated states at the same step n and r, r' the surrogate's errors there (one
Broyden pair); without any evaluation at n, r = 0: the surrogate alone drafts the first round.

Why it is exact: a state at step n holds the noises of steps before n only. All that enters the guess at n comes from
states at n or at steps before it, so it does not know the noise it will be coupled with. Never use what was evaluated
at a step behind n: it has seen that noise.

The kept noises may also be led back onto the old path, whose states need no evaluation any more: see `Rejoin`.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from specpolicy.samplers.speculative.coupling import TINY
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.drafters.rejoin import Rejoin, Walk
from specpolicy.samplers.speculative.surrogates.base import Surrogate, Tables
from specpolicy.samplers.speculative.window import Outcome, Problem, Proposal, Window, cells

DAMPING = 1.05  # of the secant: 1 would trust it fully


@dataclass
class Evaluations:
    """What is known at each step, (B, K, H*D) each: the last evaluated `state`, the network's `x0` and the surrogate's
    `error` there, how state and error differ from the evaluation before (`state_change`, zero where there is none, and
    `error_change`), and `count` (B, K, 1) evaluations so far. `reach` (B,): the last step evaluated; all before it have
    been, for windows begin where the last one stopped. `tables`, `features`: what the surrogate made of the steps and
    of the condition."""

    state: Tensor
    x0: Tensor
    error: Tensor
    state_change: Tensor
    error_change: Tensor
    count: Tensor
    reach: Tensor
    tables: Tables
    features: Tensor | None
    rounds: int = 0

    def keep(self, index: Tensor) -> "Evaluations":
        """Those of some rows."""
        parts: dict[str, Any] = {name: part[index] for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **parts)


class Recycled(Drafter):
    """One call a round. `sweeps`: how often the whole window is drafted anew, in parallel, each time guessing x0 at
    the states of the time before: the guesses at step n depend on steps before n only, as in a sequential walk.
    `rejoin`: lead paths back onto those before, see `Rejoin`; None: on a CPU only, for elsewhere each sweep then waits
    for the device."""

    name = "recycled"
    reuses_noise = True
    rejoining: type[Rejoin] = Rejoin

    def __init__(self, surrogate: Surrogate, sweeps: int = 4, rejoin: bool | None = None):
        self.surrogate, self.sweeps, self.rejoin = surrogate, sweeps, rejoin

    def begin(self, problem: Problem) -> Evaluations:
        """See `Drafter.begin`."""
        self.surrogate = self.surrogate.placed(problem.device, problem.dtype)
        size = problem.shape.numel()
        shape = (len(problem), len(problem.chain), size)
        state, x0, error, *changes = torch.zeros(5, *shape, dtype=problem.dtype, device=problem.device)
        count = torch.zeros(*shape[:2], 1, dtype=torch.int64, device=problem.device)
        reach = torch.full(shape[:1], -1, device=problem.device)
        features = self.surrogate.prepare(problem.cond)
        if features is not None:  # one row serves all where there is no condition; rows are dropped one by one
            features = features.expand(len(problem), -1)
        tables = self.surrogate.look_up(problem.timesteps)
        return Evaluations(state, x0, error, changes[0], changes[1], count, reach, tables, features)

    def propose(self, memory: Evaluations, problem: Problem, window: Window) -> Proposal:
        """See `Drafter.propose`."""
        chain, drafts = problem.chain, window.drafts
        uniform = None
        if memory.rounds and rejoins(self.rejoin, problem.device):
            # In every round, for all steps: what a row draws must not depend on the rows beside it.
            uniform = problem.noise.uniform(len(chain), rows=problem.rows)
        if not drafts:
            return Proposal(window.noise[:, :0], window.noise[:, :0])
        steps = window.index(0, drafts)
        state, error, change, error_change = (
            part[cells(steps)] for part in (memory.state, memory.error, memory.state_change, memory.error_change)
        )
        secant = error_change / (DAMPING * change.square().sum(-1, keepdim=True)).clamp(min=TINY)
        shocks = chain.shock(window.noise[:, :drafts], steps)
        surrogate = self.surrogate.at(tuple(table[steps] for table in memory.tables), memory.features)

        def guess(states: Tensor) -> Tensor:
            x0, moved = surrogate(states) + error, states - state
            return x0 + secant * (change * moved).sum(-1, keepdim=True)

        known = memory.x0[cells(steps)]
        rejoin = None if uniform is None else self._rejoin(memory, problem, window, uniform)

        def lay_out(x0: Tensor) -> tuple[Tensor, Walk | None]:
            drift = chain.drift(x0, steps)
            if rejoin is None:
                return chain.rollout(window.root, drift + shocks, steps), None
            walk = rejoin(drift)
            return walk.states, walk

        if memory.rounds:
            # Start from what the network said at each step; behind the last step evaluated, from what it said there.
            first = memory.x0[cells(torch.minimum(window.steps[:, :drafts], memory.reach[:, None]))]
        else:
            first = guess(window.root.flatten(1)[:, None].expand(-1, drafts, -1))
        x0 = chain.clip(first).view_as(shocks)
        for _ in range(self.sweeps):
            states, _ = lay_out(x0)
            at = torch.cat([window.root[:, None], states[:, :-1]], dim=1).flatten(2)
            x0 = chain.clip(guess(at)).view_as(shocks)
        states, walk = lay_out(x0)
        if walk is None:
            return Proposal(states, x0)
        # Where the walk stood on the old path it took the network's own step.
        behind = memory.x0[cells(window.index(1))].view_as(shocks)
        stood = torch.cat([torch.zeros_like(walk.joined[:, :1]), walk.joined[:, :-1]], dim=1).to(problem.device)
        x0 = torch.where(stood[..., None, None], known.view_as(shocks), x0)
        return Proposal(states, x0, noise=walk.noise, known=(walk.joined, behind))

    def _rejoin(self, memory: Evaluations, problem: Problem, window: Window, uniform: Tensor) -> Rejoin:
        """How the paths of this round rejoin those of the last, with uniform numbers (B, K)."""
        drafts, steps = window.drafts, window.index(0, window.drafts)
        met = window.steps[:, 1:] <= memory.reach[:, None]
        if window.valid is not None:
            met = met & window.valid[:, 1:].to(problem.device)
        noise = window.noise[:, :drafts]
        old, x0 = memory.state[cells(window.index())], memory.x0[cells(steps)]
        return self.rejoining(problem.chain, steps, window.root, old, x0, noise, met.cpu(), uniform[cells(steps)].cpu())

    def learn(self, memory: Evaluations, problem: Problem, window: Window, outcome: Outcome) -> Evaluations:
        """See `Drafter.learn`."""
        furthest = window.steps[:, -1]
        if window.valid is not None:
            furthest = torch.where(window.valid.to(problem.device), window.steps, -1).amax(dim=1)
        memory.reach = torch.maximum(memory.reach, furthest)
        memory.rounds += 1
        settled = outcome.settled  # what all rows have left behind is of no more use
        states, x0, at = (
            outcome.states.flatten(2)[:, settled:],
            outcome.x0.flatten(2)[:, settled:],
            window.index(settled),
        )
        error = x0 - self.surrogate.at(tuple(table[at] for table in memory.tables), memory.features)(states)
        if window.valid is None:
            known = None if outcome.known is None else outcome.known[:, settled:, None].to(problem.device)
            self._remember(memory, cells(at), states, x0, error, known)
        else:
            new = window.valid if outcome.known is None else window.valid & ~outcome.known
            rows, column = (part.to(problem.device) for part in new[:, settled:].nonzero(as_tuple=True))
            chosen = (part[rows, column] for part in (states, x0, error))
            self._remember(memory, (rows, window.steps[rows, column + settled]), *chosen)
        return memory

    @staticmethod
    def _remember(
        memory: Evaluations, at: tuple[Any, Any], states: Tensor, x0: Tensor, error: Tensor, known: Tensor | None = None
    ) -> None:
        """Write what was found in some cells of the tables, rows and steps; nothing is new where it was `known`."""
        before = memory.count[at]
        again = before > 0
        moved, changed = (states - memory.state[at]) * again, (error - memory.error[at]) * again
        if known is not None:
            moved = torch.where(known, memory.state_change[at], moved)
            changed = torch.where(known, memory.error_change[at], changed)
        memory.state_change[at], memory.error_change[at] = moved, changed
        memory.state[at], memory.x0[at], memory.error[at] = states, x0, error
        memory.count[at] = before + 1

    def keep(self, memory: Evaluations, index: Tensor) -> Evaluations:
        """See `Drafter.keep`."""
        return memory.keep(index)


def rejoins(wanted: bool | None, device: torch.device) -> bool:
    """Whether paths rejoin those before on such a device: as wanted, by default on a CPU."""
    return device.type == "cpu" if wanted is None else wanted
