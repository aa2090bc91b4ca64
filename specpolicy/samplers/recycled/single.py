"""Recycling for one chunk on the CPU, in numpy: like `RecycledDrafter`, with less to compute.

Where a drafted path is on the old one, the guess is the network's own x0 there. So the surrogate is evaluated only at
states off the old path that the network has not seen.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from specpolicy.diffusion import GaussianChain
from specpolicy.engines.functions import compiled_steps
from specpolicy.samplers.recycled.drafter import DAMPING, STRIDE
from specpolicy.samplers.recycled.rejoin import Rejoin
from specpolicy.samplers.recycled.surrogates.base import Surrogate, SurrogateModule
from specpolicy.samplers.rounds.single import Single, SingleWindow
from specpolicy.samplers.speculative.coupling import TINY, Floats
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts, Known
from specpolicy.samplers.speculative.verifiers.base import Verdict


class HostSurrogate(Protocol):
    """A surrogate in numpy."""

    def prepare(self, cond: Tensor | None) -> Any:
        """Prepare the condition, once a chunk."""
        ...

    def __call__(self, states: Floats, steps: np.ndarray, features: Any) -> Floats:
        """Return x0 (n, d) at `states` (n, d) of `steps` (n,)."""
        ...


class StepSurrogate(nn.Module):
    """A surrogate on the steps of a chain: (states (n, d), steps (n,), features (1, F)) -> x0 (n, d)."""

    def __init__(self, surrogate: Surrogate, chain: GaussianChain):
        super().__init__()
        self.surrogate, self.tables = surrogate, surrogate.look_up(chain.timesteps)

    def forward(self, states: Tensor, steps: Tensor, features: Tensor) -> Tensor:
        """Return the guess of x0."""
        return self.surrogate.at(tuple(table[steps] for table in self.tables), features)(states[None])[0]


class TorchSurrogate:
    """A surrogate as a `HostSurrogate`, computed by torch, or by `compiled`, an engine's version of its steps."""

    def __init__(self, surrogate: Surrogate, chain: GaussianChain, engine: object = None):
        self.steps = StepSurrogate(surrogate, chain).eval()
        self.surrogate: Any = surrogate
        self.dtype, self.compiled = self.steps.tables[0].dtype, None
        if isinstance(surrogate, SurrogateModule):
            self.compiled = compiled_steps(engine, surrogate, chain, self._example)

    def _example(self) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
        """Return the steps, and inputs for all of them at once."""
        source, surrogate = torch.Generator().manual_seed(0), self.surrogate
        states = torch.randn(len(self.steps.tables[0]), len(surrogate.basis), generator=source)
        cond = torch.randn(1, surrogate.cond_dim, generator=source)
        return self.steps, (states, torch.arange(len(states)), surrogate.prepare(cond))

    def prepare(self, cond: Tensor | None) -> Tensor | None:
        """See `HostSurrogate.prepare`."""
        return self.surrogate.prepare(None if cond is None else cond.to(self.dtype))

    def __call__(self, states: Floats, steps: np.ndarray, features: Any) -> Floats:
        """See `HostSurrogate`."""
        if self.compiled is not None:
            return self.compiled(states, steps, features.numpy()).astype(np.float64)
        given = torch.from_numpy(states).to(self.dtype)
        return np.asarray(self.steps(given, torch.from_numpy(steps), features).numpy(), np.float64)


@dataclass(frozen=True)
class Path:
    """Knowledge at each step of one chunk, (K, d); see `Evaluations`."""

    state: Floats
    x0: Floats
    error: Floats
    state_change: Floats
    error_change: Floats
    seen: np.ndarray
    reach: int
    features: Any
    rounds: int = 0


class RecycledSingle(Drafter):
    """See `RecycledDrafter`."""

    name = "recycled"
    reuses_noise = True
    stacked = False
    single = True

    def __init__(self, surrogate: HostSurrogate, sweeps: int = 4, rejoin: bool = True, stride: int = STRIDE):
        self.surrogate, self.sweeps, self.rejoin, self.stride = surrogate, sweeps, rejoin, stride

    def begin(self, problem: Single) -> Path:
        """See `Drafter.begin`."""
        zeros = np.zeros((len(problem.chain), len(problem.state)))
        seen = np.zeros((len(zeros), 1), bool)
        return Path(zeros, zeros, zeros, zeros, zeros, seen, -1, self.surrogate.prepare(problem.cond))

    def draft(self, memory: Path, problem: Single, window: SingleWindow) -> Drafts:
        """See `Drafter.draft`."""
        width, chain, steps = window.drafts, problem.chain, window.steps(0, window.drafts)
        stride = self.stride
        rejoins = memory.rounds > 0 and self.rejoin
        uniform = problem.source.uniform(len(chain))[0].numpy() if rejoins else np.zeros(len(chain))
        if not width:
            return Drafts(window.root[None], window.noise[:0])
        numbers = np.arange(window.first, window.first + width)
        state, error, change = memory.state[steps], memory.error[steps], memory.state_change[steps]
        square = np.einsum("nd,nd->n", change, change)[:, None]
        secant = memory.error_change[steps] / np.maximum(DAMPING * square, TINY)
        # The network's output at each step; after the last step evaluated, its output there.
        stale = memory.x0[np.minimum(numbers, memory.reach)]

        def guess(states: Floats, at: np.ndarray) -> Floats:
            along = np.einsum("nd,nd->n", change[at], states[at] - state[at])[:, None]
            return self.surrogate(states[at], numbers[at], memory.features) + error[at] + secant[at] * along

        def guess_coarsely(states: Floats, stood: np.ndarray) -> Floats:
            moved = np.zeros_like(stale[::stride])
            at = np.flatnonzero(~stood[::stride])
            moved[at] = guess(states, stride * at) - stale[stride * at]
            return chain.clipped(stale + np.repeat(moved, stride, axis=0)[:width])

        met = (numbers < memory.reach) if rejoins else np.zeros(width, bool)
        row = (
            window.root, memory.state[window.steps()], chain.drift(memory.x0[steps], steps), window.noise[:width],
            chain.tables.state_weight[steps, 0], chain.tables.sigma[steps, 0], met, uniform[steps],
        )  # fmt: skip
        rejoin = Rejoin(*(part[None] for part in row))
        stood = np.zeros(width, bool)
        x0 = stale if memory.rounds else guess_coarsely(np.broadcast_to(window.root, (width, len(window.root))), stood)
        path = rejoin(chain.drift(x0, steps)[None])
        for left in range(self.sweeps - 1, -1, -1):
            stood[1:] = path.joined[0, :-1]
            before = np.concatenate([window.root[None], path.states[0, :-1]])
            if left:
                x0 = guess_coarsely(before, stood)
            else:
                off = np.flatnonzero(~stood)
                x0 = memory.x0[steps].copy()
                x0[off] = chain.clipped(guess(before, off))
            path = rejoin(chain.drift(x0, steps)[None])
        stood[1:] = path.joined[0, :-1]
        x0 = np.where(stood[:, None], memory.x0[steps], x0)
        states = np.concatenate([window.root[None], path.states[0]])
        if not rejoins:
            return Drafts(states, x0)
        mask = np.concatenate([[False], path.joined[0]])
        return Drafts(states, x0, Known(mask, memory.x0[window.steps()]), path.noise[0])

    def learn(
        self, memory: Path, problem: Single, window: SingleWindow, drafts: Drafts, x0: Floats, verdict: Verdict
    ) -> Path:
        """See `Drafter.learn`."""
        width = window.drafts
        new = np.arange(width + 1) >= min(int(verdict.accepted[0]) + 1, width)
        if drafts.known is not None:
            new &= ~drafts.known.mask
        column = np.flatnonzero(new)
        at, states, said = window.first + column, drafts.states[column], x0[column]
        wrong = said - self.surrogate(states, at, memory.features) if len(at) else said
        again = memory.seen[at]

        def written(table: Floats, values: Any) -> Floats:
            table = table.copy()
            table[at] = values
            return table

        return replace(
            memory,
            state=written(memory.state, states),
            x0=written(memory.x0, said),
            error=written(memory.error, wrong),
            state_change=written(memory.state_change, (states - memory.state[at]) * again),
            error_change=written(memory.error_change, (wrong - memory.error[at]) * again),
            seen=written(memory.seen, True),
            reach=max(memory.reach, window.first + width),
            rounds=memory.rounds + 1,
        )
