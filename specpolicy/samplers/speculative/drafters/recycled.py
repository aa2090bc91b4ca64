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
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from specpolicy.samplers.speculative.coupling import TINY
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.drafters.extra_rows import ExtraRows, Slopes
from specpolicy.samplers.speculative.surrogates.base import Surrogate
from specpolicy.samplers.speculative.window import Outcome, Problem, Proposal, Window

DAMPING = 1.05  # of the secant: 1 would trust it fully


@dataclass
class Evaluations:
    """What is known at each step, (B, K, H*D) each: the last evaluated `state`, the network's `x0` and the surrogate's
    `error` there, how state and error differ from the evaluation before (`state_change`, zero where there is none, and
    `error_change`), and `count` (B, K, 1) evaluations so far; `features`: what the surrogate made of the condition.
    `reach` (B,): the last step evaluated; all before it have been, for windows begin where the last one stopped."""

    state: Tensor
    x0: Tensor
    error: Tensor
    state_change: Tensor
    error_change: Tensor
    count: Tensor
    reach: Tensor
    features: Tensor | None
    slopes: Slopes | None
    rounds: int = 0

    def keep(self, index: Tensor) -> "Evaluations":
        """Those of some rows."""
        parts: dict[str, Any] = {name: part[index] for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, slopes=None if self.slopes is None else self.slopes.keep(index), **parts)


class Recycled(Drafter):
    """One call a round. `sweeps`: how often the whole window is drafted anew, in parallel, each time guessing x0 at
    the states of the time before: the guesses at step n depend on steps before n only, as in a sequential walk.
    `directions` (R, H*D): evaluate extra rows along them, see `ExtraRows`."""

    name = "recycled"
    reuses_noise = True

    def __init__(self, surrogate: Surrogate, sweeps: int = 4, directions: Tensor | None = None):
        self.surrogate, self.sweeps = surrogate, sweeps
        self.extra = None if directions is None else ExtraRows(directions)

    def begin(self, problem: Problem) -> Evaluations:
        """See `Drafter.begin`."""
        self.surrogate = self.surrogate.to(problem.device, problem.dtype)
        size = problem.shape.numel()
        shape = (len(problem), len(problem.path), size)
        state, x0, error, *changes = torch.zeros(5, *shape, dtype=problem.dtype, device=problem.device)
        count = torch.zeros(*shape[:2], 1, dtype=torch.int64, device=problem.device)
        reach = torch.full(shape[:1], -1, device=problem.device)
        features = self.surrogate.prepare(problem.cond)
        if features is not None:  # one row serves all where there is no condition; rows are dropped one by one
            features = features.expand(len(problem), -1)
        slopes = None if self.extra is None else self.extra.begin(problem)
        return Evaluations(state, x0, error, changes[0], changes[1], count, reach, features, slopes)

    def propose(self, memory: Evaluations, problem: Problem, window: Window) -> Proposal:
        """See `Drafter.propose`."""
        path, drafts = problem.path, window.drafts
        steps = window.steps[:, :drafts]
        if not drafts:
            return Proposal(window.noise[:, :0], window.noise[:, :0])
        rows = torch.arange(len(problem), device=problem.device)[:, None]
        state, error, change, error_change = (
            part[rows, steps] for part in (memory.state, memory.error, memory.state_change, memory.error_change)
        )
        correct = None
        if self.extra is not None and memory.slopes is not None:
            correct = self.extra.correction(memory.slopes, steps)
            # The secant is for what the slopes do not know.
            error_change = error_change - correct(change)
        secant = error_change / (DAMPING * change.square().sum(-1, keepdim=True)).clamp(min=TINY)
        segment = path.segment(steps)
        shocks = segment.sigma[..., None, None] * window.noise[:, :drafts]
        surrogate = self.surrogate.at(segment.timesteps, memory.features)

        def guess(states: Tensor) -> Tensor:
            x0, moved = surrogate(states) + error, states - state
            if correct is not None and memory.rounds:
                x0 = x0 + correct(moved)
            return x0 + secant * (change * moved).sum(-1, keepdim=True)

        if memory.rounds:
            # Start from what the network said at each step; behind the last step evaluated, from what it said there.
            known = memory.x0[rows, torch.minimum(steps, memory.reach[:, None])]
        else:
            known = guess(window.root.flatten(1)[:, None].expand(*steps.shape, -1))
        x0 = path.clip(known).view_as(shocks)
        for _ in range(self.sweeps):
            states = segment.roll(window.root, segment.drift(x0) + shocks)
            at = torch.cat([window.root[:, None], states[:, :-1]], dim=1).flatten(2)
            x0 = path.clip(guess(at)).view_as(shocks)
        states = segment.roll(window.root, segment.drift(x0) + shocks)
        extra = None
        if self.extra is not None and memory.slopes is not None:
            path_states = torch.cat([window.root[:, None], states], dim=1)
            extra = self.extra.states(memory.slopes, problem, window, path_states)
        return Proposal(states, x0, extra=extra)

    def learn(self, memory: Evaluations, problem: Problem, window: Window, outcome: Outcome) -> Evaluations:
        """See `Drafter.learn`."""
        furthest = window.steps[:, -1]
        if window.valid is not None:
            furthest = torch.where(window.valid.to(problem.device), window.steps, -1).amax(dim=1)
        memory.reach = torch.maximum(memory.reach, furthest)
        memory.rounds += 1
        # What all rows have left behind is of no more use, except to slopes, which are measured along the whole path.
        later = slice(outcome.settled if self.extra is None else 0, None)
        states, x0, steps = outcome.states.flatten(2)[:, later], outcome.x0.flatten(2)[:, later], window.steps[:, later]
        error = x0 - self.surrogate.at(problem.path.timesteps[steps], memory.features)(states)
        if self.extra is not None and memory.slopes is not None and outcome.extra is not None:
            at, found = (part.flatten(2) for part in outcome.extra)
            grid = memory.slopes.grid.repeat_interleave(at.shape[1] // len(memory.slopes.grid)).expand(len(at), -1)
            moved = found - self.surrogate.at(problem.path.timesteps[grid], memory.features)(at)
            memory.slopes = self.extra.measure(memory.slopes, problem, window, error, moved)
        rows = torch.arange(len(problem), device=problem.device)[:, None].expand_as(steps)
        if window.valid is not None:
            valid = window.valid[:, later].to(problem.device)
            rows, steps, states, x0, error = rows[valid], steps[valid], states[valid], x0[valid], error[valid]
        before = memory.count[rows, steps]
        again = before > 0
        memory.state_change[rows, steps] = (states - memory.state[rows, steps]) * again
        memory.error_change[rows, steps] = (error - memory.error[rows, steps]) * again
        memory.state[rows, steps], memory.x0[rows, steps], memory.error[rows, steps] = states, x0, error
        memory.count[rows, steps] = before + 1
        return memory

    def keep(self, memory: Evaluations, index: Tensor) -> Evaluations:
        """See `Drafter.keep`."""
        return memory.keep(index)
