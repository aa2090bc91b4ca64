"""What drafters, the loop and verifiers hand to each other in one round."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser, NoiseSource, upload

Steps = Tensor | slice  # which steps: numbers of any shape, or a range of them that all rows of a batch share


@dataclass
class Draws:
    """Randomness by step: `noise` (B, K, H, D) and `uniform` (B, K, 2) float64, for decisions and for redraws."""

    noise: Tensor
    uniform: Tensor

    @classmethod
    def fresh(cls, source: NoiseSource, rows: Tensor, count: int, shape: Sequence[int]) -> "Draws":
        """New draws for some rows of the batch. Each row draws for all K steps, however long its window is, so that
        its numbers do not depend on the rows beside it."""
        return cls(source.normal(count, *shape, rows=rows), source.uniform(count, 2, rows=rows))

    def keep(self, index: Tensor) -> "Draws":
        """Those of some rows."""
        return Draws(self.noise[index], self.uniform[index])


@dataclass
class Window:
    """The steps a round may take, for the B rows still at work; W is the longest window among them.

    `root` (B, H, D) current exact states; `steps` (B, W+1) int64, the step each state is at, the root's first;
    `noise` (B, W+1, H, D) what each step adds, in units of sigma; `uniforms` (B, W+1, 2);
    `valid` (B, W+1) bool on the CPU, or None where all rows have W drafts; `first`: the step of every root, or None if
    rows are at different ones.
    """

    root: Tensor
    steps: Tensor
    noise: Tensor
    uniforms: Tensor
    valid: Tensor | None
    first: int | None = None

    @property
    def drafts(self) -> int:
        """W."""
        return self.steps.shape[1] - 1

    def index(self, start: int = 0, stop: int | None = None) -> Steps:
        """Steps `start` to `stop` of the window, by default to its end, to look tables up by: a slice where rows are
        at the same steps, for that is several times as fast as gathering."""
        if self.first is None:
            return self.steps[:, start:stop]
        return slice(self.first + start, self.first + (self.drafts + 1 if stop is None else stop))


@dataclass
class Proposal:
    """What a drafter proposes: `states` (B, W, H, D) after each step, made with `x0` (B, W, H, D) in place of the
    network's; `root_x0` (B, H, D) if the drafter has evaluated the root itself; `noise` (B, W, H, D) that leads
    to the states where it is not the window's: a drafter may transform noises that nobody has looked at, if what it
    makes of those of a step is standard normal given all that came before; `known`: which states (B, W), bool on the
    CPU, have been evaluated in an earlier round, and x0 (B, W, H, D) there."""

    states: Tensor
    x0: Tensor
    root_x0: Tensor | None = None
    noise: Tensor | None = None
    known: tuple[Tensor, Tensor] | None = None


@dataclass
class Outcome:
    """A verified round: `states` and their `x0` (B, W+1, H, D), the root's first; `accepted` (B,) int64 drafts, on
    the CPU; `settled`: of so many states of the window no row will need what was found there again; `known` (B, W+1)
    states whose x0 is of an earlier round, on the CPU, or None."""

    states: Tensor
    x0: Tensor
    accepted: Tensor
    settled: int = 0
    known: Tensor | None = None


def cells(steps: Steps) -> tuple[slice | Tensor, slice | Tensor]:
    """What to index a table (B, K, ...) with for each row's entries (B, W, ...) at its steps, a `Window.index`."""
    if isinstance(steps, slice):
        return slice(None), steps
    return torch.arange(len(steps), device=steps.device)[:, None], steps


def pick(table: Tensor, place: Tensor) -> Tensor:
    """(B, ...) of a table (B, N, ...): of each row the entry at `place` (B,), on the CPU."""
    if len(table) == 1:
        return table[:, int(place)]
    return table[torch.arange(len(table), device=table.device), upload(place, table.device)]


class Problem:
    """The chunks being denoised, and the randomness of it: evaluates states with the network, and counts."""

    def __init__(
        self, denoiser: Denoiser, chain: GaussianChain, state: Tensor, cond: Tensor | None, noise: NoiseSource
    ):
        self.denoiser, self.chain, self.cond, self.noise = denoiser, chain, cond, noise
        self.device, self.timesteps = state.device, chain.timesteps_on(state.device)
        self.dtype, self.shape = state.dtype, state.shape[1:]
        self.rows = torch.arange(len(state))
        self.calls = torch.zeros(len(state), dtype=torch.int64)
        self.evaluated = torch.zeros(len(state), dtype=torch.int64)

    def __len__(self) -> int:
        """Number of rows still at work."""
        return len(self.rows)

    def keep(self, left: Tensor, index: Tensor) -> None:
        """Go on with some of the rows only; `left` on the CPU, `index` the same on the device."""
        self.rows = self.rows[left]
        if self.cond is not None:
            self.cond = self.cond[index]

    def evaluate(self, states: Tensor, steps: Steps, valid: Tensor | None = None) -> Tensor:
        """x0 (B, N, H, D) at `states` (B, N, H, D), `steps` (B, N) or a `Window.index`, in one call; zero where `valid`
        is not (then steps are (B, N))."""
        batch, count = states.shape[:2]
        if batch * count == 0:
            return torch.zeros_like(states)
        if valid is None:
            self.calls[self.rows] += 1
            self.evaluated[self.rows] += count
            timesteps = self.timesteps[steps].expand(batch, count).flatten()
            output = self.denoiser(states.flatten(0, 1), timesteps, self.conditions(count))
            return self.chain.x0(output.view_as(states), states, steps)
        assert isinstance(steps, Tensor)
        counts = valid.sum(1)
        self.calls[self.rows] += counts > 0
        self.evaluated[self.rows] += counts
        row, column = (upload(index, self.device) for index in valid.nonzero(as_tuple=True))
        x0 = torch.zeros_like(states)
        if len(row):
            chosen, at = states[row, column], steps[row, column]
            cond = None if self.cond is None else self.cond[row]
            x0[row, column] = self.chain.x0(self.denoiser(chosen, self.timesteps[at], cond), chosen, at)
        return x0

    def conditions(self, count: int) -> Tensor | None:
        """The condition of each row, `count` times: (B * count, ...)."""
        if self.cond is None:
            return None
        if len(self.cond) == 1:
            return self.cond.expand(count, *self.cond.shape[1:])
        return self.cond.repeat_interleave(count, dim=0)
