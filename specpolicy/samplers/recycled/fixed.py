"""Recycling in rounds of fixed shapes, for one chunk on a GPU: `RecycledDrafter` without rejoining, which walks step by
step."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from specpolicy.samplers.recycled.drafter import DAMPING, STRIDE
from specpolicy.samplers.recycled.surrogates.base import Surrogate, Tables
from specpolicy.samplers.rounds.fixed import Fixed, FixedWindow
from specpolicy.samplers.speculative.coupling import TINY
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts


class FixedEvaluations(NamedTuple):
    """See `Evaluations`; (R, d) each, of R rows as the tables of `Values`. `last`: the surrogate's error at the last
    draft. `tables`, `features`: its preparation of all steps and of the condition."""

    state: Tensor
    x0: Tensor
    error: Tensor
    state_change: Tensor
    error_change: Tensor
    seen: Tensor
    last: Tensor
    reach: Tensor
    tables: Tables
    features: Tensor | None


class RecycledFixed(Drafter):
    """See `RecycledDrafter`. `surrogate`: on the device of the chunks."""

    name = "recycled"
    reuses_noise = True
    stacked = False

    def __init__(self, surrogate: Surrogate, sweeps: int = 4, stride: int = STRIDE):
        self.surrogate, self.sweeps, self.stride = surrogate, sweeps, stride

    def begin(self, problem: Fixed) -> FixedEvaluations:
        """See `Drafter.begin`."""
        state, x0, error, state_change, error_change, last = problem.values.states.flatten(1).new_zeros(
            6, len(problem.values.states), problem.shape.numel()
        )
        return FixedEvaluations(
            state,
            x0,
            error,
            state_change,
            error_change,
            seen=torch.zeros_like(state[:, :1]),
            last=last,
            reach=torch.full_like(problem.values.position, -1),
            tables=self.surrogate.look_up(problem.timesteps),
            features=self.surrogate.prepare(problem.cond),
        )

    def draft(self, memory: FixedEvaluations, problem: Fixed, window: FixedWindow) -> Drafts:
        """See `Drafter.draft`."""
        chain, drafts, stride = problem.chain, window.drafts, self.stride
        steps, root = window.steps[:-1], window.root.flatten(1)
        shocks = chain.shock(window.noise[:-1], steps)
        # The network's output at each step; after the last step evaluated, its output there.
        stale = memory.x0[torch.minimum(steps, memory.reach.clamp(min=0))]

        def guess(states: Tensor, every: int = 1) -> Tensor:
            at = steps[::every]
            state, error, change = memory.state[at], memory.error[at], memory.state_change[at]
            secant = memory.error_change[at] / (DAMPING * change.square().sum(-1, keepdim=True)).clamp(min=TINY)
            return self._ask(memory, states, at) + error + secant * (change * (states - state)).sum(-1)[:, None]

        def guess_coarsely(states: Tensor) -> Tensor:
            moved = guess(states[::stride], stride) - stale[::stride]
            return stale + moved.repeat_interleave(stride, dim=0)[:drafts]

        def lay_out(x0: Tensor) -> Tensor:
            additions = chain.drift(x0.view_as(shocks), steps) + shocks
            return torch.cat([window.root, chain.rollout(window.root, additions[None], steps[None])[0]])

        if not drafts:
            return Drafts(window.root, shocks)
        x0 = chain.clip(guess_coarsely(root.expand(drafts, -1)) if problem.first else stale)
        for left in range(self.sweeps - 1, -1, -1):
            before = lay_out(x0)[:-1].flatten(1)
            x0 = chain.clip(guess_coarsely(before) if left else guess(before))
        return Drafts(lay_out(x0), x0.view_as(shocks))

    def _ask(self, memory: FixedEvaluations, states: Tensor, steps: Tensor) -> Tensor:
        tables = tuple(table[steps] for table in memory.tables)
        return self.surrogate.at(tables, memory.features)(states[None])[0]

    def note(
        self, memory: FixedEvaluations, problem: Fixed, window: FixedWindow, drafts: Drafts, x0: Tensor
    ) -> FixedEvaluations:
        """See `Drafter.note`."""
        error = x0.flatten(1) - self._ask(memory, drafts.states.flatten(1), window.steps)
        return memory._replace(last=memory.last.index_copy(0, window.places, error))

    def learn(
        self, memory: FixedEvaluations, problem: Fixed, window: None, drafts: Any, x0: Tensor, verdict: Tensor
    ) -> FixedEvaluations:
        """See `Drafter.learn`."""
        accepted, _, width = verdict.long().split(1)
        start, place = problem.values.position - accepted - 1, torch.arange(len(x0), device=x0.device)
        # A chunk goes on after the state it took last. After a full draft it still needs the last, furthest evaluation.
        new = (place >= start + torch.minimum(accepted + 1, width)) & (place <= start + width)
        state, error, again, new = problem.values.states.flatten(1), memory.last, memory.seen, new[:, None]
        return memory._replace(
            state=torch.where(new, state, memory.state),
            x0=torch.where(new, x0.flatten(1), memory.x0),
            error=torch.where(new, error, memory.error),
            state_change=torch.where(new, (state - memory.state) * again, memory.state_change),
            error_change=torch.where(new, (error - memory.error) * again, memory.error_change),
            seen=torch.where(new, torch.ones_like(again), again),
            reach=torch.maximum(memory.reach, start + width),
        )
