"""Rounds for one chunk on the CPU, in numpy: the case a robot waits for. Their arithmetic is small beside a call of the
network, and numpy runs a small operation in a fraction of the time of torch. Only the network sees tensors.

A chunk is a vector of d = H*D numbers in float64. The random numbers are those that `Batch` draws for one row, in its
order, so both make the same chunk, to rounding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specpolicy.samplers.base import Chunks, Denoiser, Sample
from specpolicy.samplers.rounds.host_chain import At, HostChain
from specpolicy.samplers.rounds.shared import not_finite
from specpolicy.samplers.speculative.coupling import TINY, Floats
from specpolicy.samplers.speculative.problem import Drafts, Known, Tally
from specpolicy.samplers.speculative.verifiers.base import Verdict

ROW = np.zeros(1, np.int64)  # the only one


@dataclass
class SingleWindow:
    """See `Window`, for one chunk: `root` (d,), `noise` (W+1, d), `uniforms` (W+1, 2), from step `first` on."""

    root: Floats
    noise: Floats
    uniforms: Floats
    first: int
    drafts: int

    def steps(self, start: int = 0, stop: int | None = None) -> slice:
        """Return steps `start` to `stop` of the window, by default to its end."""
        return slice(self.first + start, self.first + (self.drafts + 1 if stop is None else stop))

    def hold(self, x0: Floats) -> Floats:
        """See `Window.hold`."""
        return np.broadcast_to(x0, (self.drafts, len(x0)))


class Single:
    """See `Problem`, for one chunk."""

    stacked = False

    def __init__(self, model: Denoiser, chain: HostChain, chunks: Chunks, limits: np.ndarray):
        self.model, self.chain, self.limits = model, chain, limits
        self.cond, self.source = chunks.cond, chunks.noise
        self.shape, self.dtype = chunks.state.shape[1:], chunks.state.dtype
        self.state = chunks.state.numpy().reshape(-1).astype(np.float64)
        self.position = 0
        self.tally = Tally(1, len(chain))
        self.trace = np.empty((len(chain) + 1, len(self.state))) if chunks.return_states else None
        if self.trace is not None:
            self.trace[0] = self.state
        self.redraw()

    @property
    def unfinished(self) -> bool:
        """Whether steps are left."""
        return self.position < len(self.chain)

    def redraw(self) -> None:
        """See `Problem.redraw`."""
        count = len(self.chain)
        noise = self.source.normal(count, *self.shape)
        self.noise = noise.numpy().reshape(count, -1).astype(np.float64)
        self.uniform = self.source.uniform(count, 2)[0].numpy()

    def open(self) -> SingleWindow:
        """See `Problem.open`."""
        width = int(self.limits[self.position])
        steps = slice(self.position, self.position + width + 1)
        return SingleWindow(self.state, self.noise[steps], self.uniform[steps], self.position, width)

    def evaluate_root(self, window: SingleWindow) -> Floats:
        """See `Problem.evaluate_root`."""
        return self._call(window.root[None], window.steps(0, 1))[0]

    def follow(self, window: SingleWindow, x0: Floats, root_x0: Floats | None = None) -> Drafts:
        """See `Problem.follow`."""
        width, steps = window.drafts, window.steps(0, window.drafts)
        additions = self.chain.drift(x0, steps) + self.chain.tables.sigma[steps] * window.noise[:width]
        states = np.concatenate([window.root[None], self.chain.rollout(window.root, additions, steps)])
        known = None if root_x0 is None else Known(np.arange(width + 1) == 0, root_x0[None])
        return Drafts(states, x0, known)

    def evaluate(self, window: SingleWindow, drafts: Drafts) -> Floats:
        """See `Problem.evaluate`."""
        if drafts.known is None:
            return self._call(drafts.states, window.steps())
        wanted = np.flatnonzero(~drafts.known.mask)
        x0 = np.empty_like(drafts.states)
        x0[:] = drafts.known.x0
        if len(wanted):
            x0[wanted] = self._call(drafts.states[wanted], window.first + wanted)
        return x0

    def _call(self, states: Floats, at: At) -> Floats:
        """Return x0 (n, d) at `states` (n, d) of steps (n,), in one call."""
        rows = len(states)
        self.tally.call(ROW, rows)
        given = torch.from_numpy(states.astype(np.float32 if self.dtype == torch.float32 else np.float64))
        cond = None if self.cond is None else self.cond.expand(rows, *self.cond.shape[1:])
        said = self.model(given.view(rows, *self.shape), torch.from_numpy(self.chain.timesteps[at]), cond)
        output = said.numpy().reshape(rows, -1)
        finite = np.isfinite(output).all(axis=1)
        if not finite.all():
            bad = int(np.argmin(finite))
            step = int(np.arange(len(self.chain))[at][bad])
            raise not_finite(self.chain.chain, step, bool(np.isfinite(states[bad]).all()))
        return self.chain.x0(output, states, at)

    def gaps(
        self, window: SingleWindow, drafts: Drafts, x0: Floats
    ) -> tuple[Floats, Floats, Floats, Floats, np.ndarray]:
        """See `Problem.gaps`."""
        width = window.drafts
        noise = window.noise[:width] if drafts.noise is None else drafts.noise
        gap = self.chain.gap(x0[:width], drafts.x0, window.steps(0, width))
        delta = np.sqrt(np.einsum("nd,nd->n", gap, gap))
        coordinate = np.einsum("nd,nd->n", gap, noise) / np.maximum(delta, TINY)
        uniform = window.uniforms[None, :width]
        return delta[None], coordinate[None], uniform[..., 0], uniform[..., 1], np.array([width])

    def commit(self, window: SingleWindow, drafts: Drafts, x0: Floats, verdict: Verdict) -> None:
        """See `Problem.commit`."""
        chain, width, accepted = self.chain, window.drafts, int(verdict.accepted[0])
        step = window.first + accepted
        if drafts.noise is not None:
            self.noise = self.noise.copy()
            self.noise[window.steps(0, width)] = drafts.noise
        noise = self.noise[step]
        if accepted < width:
            # Move the noise along the gap to its new coordinate; the parts orthogonal to it keep their distribution.
            gap = self.chain.gap(x0[accepted], drafts.x0[accepted], step)
            noise = noise + (verdict.shift[0] / max(float(np.sqrt(gap @ gap)), TINY)) * gap
        mean = chain.tables.state_weight[step] * drafts.states[accepted] + chain.drift(x0[accepted], step)
        self.state = mean + chain.tables.sigma[step] * noise
        self.tally.round(ROW, ROW + window.first, np.array([width]), verdict.accepted)
        if self.trace is not None:
            self.trace[window.first + 1 : step + 1] = drafts.states[1 : accepted + 1]
            self.trace[step + 1] = self.state
        self.position = step + 1

    def leave(self) -> Tensor | None:
        """See `Problem.leave`."""
        return None

    def parent(self, x0: Floats, verdict: Verdict) -> Floats:
        """See `Problem.parent`."""
        return x0[int(verdict.accepted[0])]

    def sample(self) -> Sample:
        """See `Problem.sample`."""
        trace = None if self.trace is None else self._chunks(self.trace)[:, None]
        return Sample(self._chunks(self.state[None]), self.tally.statistics(), trace)

    def _chunks(self, vectors: Floats) -> Tensor:
        return torch.from_numpy(vectors.reshape(-1, *self.shape)).to(self.dtype)
