"""Rounds for one chunk with fixed shapes: a round is one function of tensors, which a GPU can run as one graph.

`Batch` keeps lengths and indices on the host. Here they are masks and gathers, so a round runs the same operations
whatever the numbers are. From the same random numbers it makes the same chunk as `Batch`, to rounding.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from specpolicy.diffusion import GaussianChain
from specpolicy.model import check_output
from specpolicy.samplers.base import Chunks, Denoiser, marked
from specpolicy.samplers.rounds.shared import along_gaps
from specpolicy.samplers.speculative.coupling import TINY
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts, Known


class Values(NamedTuple):
    """State of a chunk between two rounds.

    Shapes: (H, D) is a chunk, K the number of steps, R = K + the longest draft length the number of table rows. Table
    rows after the first K belong to drafts beyond the end; nothing reads them.

    Attributes:
        state: (H, D) state at `position`, before `verdict` is carried out.
        position: (1,) int64, the step of `state`.
        verdict: (3,) float64, the verdict on the last round: accepted drafts, shift of the noise, number of drafts.
        noise: (K, H, D) noise of each step.
        uniform: (K, 2) float64 uniform numbers of each step, for decisions and for redraws.
        states: (R, H, D) last draft at each step.
        x0: (R, H, D) the network's x0 at this draft.
        guesses: (R, H, D) the drafter's guess of x0 at each step.
        shocks: (R, H, D) the noise that each step was drafted with.
        cond: (1, ...) condition, or None.
        memory: memory of a drafter that begins with one; None for drafters that learn from the last round alone.
    """

    state: Tensor
    position: Tensor
    verdict: Tensor
    noise: Tensor
    uniform: Tensor
    states: Tensor
    x0: Tensor
    guesses: Tensor
    shocks: Tensor
    cond: Tensor | None
    memory: Any


@dataclass(frozen=True)
class FixedWindow:
    """The stretch of the chain that a round drafts, see `Window`; W is the number of drafts.

    Attributes:
        root: (1, H, D) state that the round begins at.
        noise: (W+1, H, D) noise of each step.
        steps: (W+1,) step of each state; beyond the end of the chain its last step.
        places: (W+1,) row of each state in the tables of `Values`.
    """

    root: Tensor
    noise: Tensor
    steps: Tensor
    places: Tensor

    @property
    def drafts(self) -> int:
        """Number of drafts, W."""
        return len(self.steps) - 1

    def hold(self, x0: Tensor) -> Tensor:
        """See `Window.hold`."""
        return x0.expand(self.drafts, *x0.shape[-2:])


class Fixed:
    """The part of a `Problem` that one round needs.

    Attributes:
        first: whether nothing has been drafted before.
        calls: number of states in each network call so far.
    """

    stacked = False

    def __init__(self, chain: GaussianChain, network: Denoiser, values: Values, first: bool = False):
        self.chain, self.network, self.values, self.first, self.calls = chain, network, values, first, list[int]()
        self.device, self.shape, self.cond = values.state.device, values.state.shape, values.cond
        self.timesteps = chain.timesteps_on(self.device)

    def open(self, drafts: int) -> FixedWindow:
        """Return the window of the next round, with a fixed number of drafts."""
        places = self.values.position + torch.arange(drafts + 1, device=self.device)
        steps = places.clamp(max=len(self.chain) - 1)
        return FixedWindow(self.values.state[None], self.values.noise[steps], steps, places)

    def evaluate_root(self, window: FixedWindow) -> Tensor:
        """See `Problem.evaluate_root`; (1, H, D)."""
        return self._call(window.root, window.steps[:1])

    def follow(self, window: FixedWindow, x0: Tensor, root_x0: Tensor | None = None) -> Drafts:
        """See `Problem.follow`."""
        chain, steps = self.chain, window.steps[:-1]
        additions = chain.drift(x0, steps) + chain.shock(window.noise[:-1], steps)
        states = torch.cat([window.root, chain.rollout(window.root, additions[None], steps[None])[0]])
        known = None if root_x0 is None else Known(np.arange(len(states)) == 0, root_x0)
        return Drafts(states, x0, known)

    def evaluate(self, window: FixedWindow, drafts: Drafts) -> Tensor:
        """See `Problem.evaluate`."""
        if drafts.known is None:
            return self._call(drafts.states, window.steps)
        if not window.drafts:
            return drafts.known.x0
        return torch.cat([drafts.known.x0, self._call(drafts.states[1:], window.steps[1:])])

    def _call(self, states: Tensor, steps: Tensor) -> Tensor:
        self.calls.append(len(states))
        cond = None if self.cond is None else self.cond.expand(len(states), *self.cond.shape[1:])
        output = self.network(states, self.timesteps[steps], cond)
        check_output(output, states)
        return marked(self.chain.x0(output, states, steps), output)

    def report(self, window: FixedWindow, drafts: Drafts, x0: Tensor) -> Tensor:
        """Return the numbers that the host needs, (5, W+1) float64.

        In order: gaps, coordinates, whether the network's values are finite, and the two uniform numbers of each step.
        """
        gap = self.chain.gap(x0[:-1], drafts.x0, window.steps[:-1])
        delta, coordinate = along_gaps(gap[None], window.noise[None, :-1])
        finite = x0.flatten(1).sum(-1).isfinite()
        uniform = self.values.uniform[window.steps].unbind(-1)
        return torch.stack([pad(delta[0], (0, 1)), pad(coordinate[0], (0, 1)), finite, *uniform])

    def parent(self, x0: Tensor, verdict: Any) -> Tensor:
        """See `Problem.parent`, for the tables after a round: the state before the one that the round went on to."""
        return x0[self.values.position - 1]


def committed(chain: GaussianChain, values: Values) -> Values:
    """Return the values after carrying out the verdict on the last round; see `Problem.commit`."""
    accepted, shift, _ = values.verdict.split(1)
    places = values.position + accepted.long()
    step = places.clamp(max=len(chain) - 1)
    x0, guess, noise = values.x0[places], values.guesses[places], values.shocks[places]
    # Move the noise along the gap to its new coordinate; the parts orthogonal to it keep their distribution.
    gap = chain.gap(x0, guess, step)
    length = torch.linalg.vector_norm(gap.flatten(1), dim=1)[:, None, None].clamp(min=TINY)
    moved = noise + shift.to(gap)[:, None, None] * (gap / length)
    # After a full window there is no guess. Its table row is left over, perhaps from an earlier chunk that failed.
    noise = torch.where(shift[:, None, None] != 0, moved, noise)
    state = chain.mean(values.states[places], x0, step) + chain.shock(noise, step)
    return values._replace(state=state[0], position=places + 1)


class Round:
    """One round with W drafts, as a function of values alone.

    Attributes:
        first: whether nothing has been drafted before.
        calls: number of states in each network call of the round; known after it has run.
    """

    def __init__(self, chain: GaussianChain, network: Denoiser, drafter: Drafter, drafts: int, first: bool):
        self.chain, self.network, self.drafter, self.drafts, self.first = chain, network, drafter, drafts, first
        self.calls: list[int] = []

    def __call__(self, values: Values) -> tuple[Values, Tensor]:
        """Return the values after the round, and the numbers that a verifier decides on."""
        drafter, keeps = self.drafter, values.memory is not None
        if not self.first:
            values = committed(self.chain, values)
        problem = Fixed(self.chain, self.network, values, self.first)
        if self.first:
            memory = drafter.begin(problem)
        else:
            memory = drafter.learn(values.memory, problem, None, None, values.x0, values.verdict)
        window = problem.open(self.drafts)
        drafts = drafter.draft(memory, problem, window)
        x0 = problem.evaluate(window, drafts)
        self.calls = problem.calls
        if keeps:
            memory = drafter.note(memory, problem, window, drafts, x0)
        at = window.places
        return values._replace(
            states=values.states.index_copy(0, at, drafts.states),
            x0=values.x0.index_copy(0, at, x0),
            guesses=values.guesses.index_copy(0, at[:-1], drafts.x0),
            shocks=values.shocks.index_copy(0, at, window.noise),
            memory=memory if keeps else None,
        ), problem.report(window, drafts, x0)


def start(chain: GaussianChain, drafter: Drafter, network: Denoiser, chunks: Chunks, spare: int) -> Values:
    """Return the values for the first chunk, before its first round and without its random numbers.

    Args:
        chain: the chain, of K steps.
        drafter: fills `memory` if it begins with one.
        network: the network of the problem.
        chunks: the chunk to draw.
        spare: table rows after the K steps, as many as the longest window has drafts.
    """
    state, count = chunks.state[0], len(chain)
    states, x0, guesses, shocks = (state.new_zeros(count + spare, *state.shape) for _ in range(4))
    values = Values(
        state=state,
        position=torch.zeros(1, dtype=torch.int64, device=state.device),
        verdict=torch.zeros(3, dtype=torch.float64, device=state.device),
        noise=state.new_zeros(count, *state.shape),
        uniform=torch.zeros(count, 2, dtype=torch.float64, device=state.device),
        states=states,
        x0=x0,
        guesses=guesses,
        shocks=shocks,
        cond=None if chunks.cond is None else chunks.cond[:1],
        memory=None,
    )
    return values._replace(memory=drafter.begin(Fixed(chain, network, values, first=True)))
