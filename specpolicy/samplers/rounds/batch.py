"""Rounds for many chunks at once, as tensors on any device.

Rows advance at their own pace, so the states of one call are at different steps. Finished rows are dropped. The faster
forms for one chunk are tested against this one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Chunks, Denoiser, Sample, marked, upload
from specpolicy.samplers.rounds.shared import Steps, along_gaps, cells, not_finite, pick
from specpolicy.samplers.speculative.coupling import TINY, Floats
from specpolicy.samplers.speculative.problem import Drafts, Known, Tally
from specpolicy.samplers.speculative.verifiers.base import Verdict


@dataclass
class BatchWindow:
    """The stretch of the chain that each row drafts in a round, see `Window`.

    B is the number of rows, W the largest number of drafts of any row.

    Attributes:
        root: (B, H, D) state that each row begins at.
        steps: (B, W+1) int64, step of each state.
        noise: (B, W+1, H, D) noise of each step.
        uniforms: (B, W+1, 2) float64, uniform numbers for decisions and for redraws.
        width: (B,) number of drafts of each row, on the host.
        valid: (B, W+1) bool on the host, whether a state is within its row's window; None if all rows have W drafts.
        first: the step of every root; None if rows are at different steps.
    """

    root: Tensor
    steps: Tensor
    noise: Tensor
    uniforms: Tensor
    width: np.ndarray
    valid: np.ndarray | None
    first: int | None

    @property
    def drafts(self) -> int:
        """The largest number of drafts, W."""
        return self.steps.shape[1] - 1

    def index(self, start: int = 0, stop: int | None = None) -> Steps:
        """Return an index for tables at steps `start` to `stop` of the window, by default to its end.

        It is a slice if all rows are at the same steps, because slicing is several times as fast as gathering.
        """
        if self.first is None:
            return self.steps[:, start:stop]
        return slice(self.first + start, self.first + (self.drafts + 1 if stop is None else stop))

    def hold(self, x0: Tensor) -> Tensor:
        """See `Window.hold`."""
        return x0[:, None].expand(-1, self.drafts, -1, -1)


class Batch:
    """See `Problem`.

    Args:
        model: the network.
        chain: the chain, of K steps.
        chunks: the chunks to draw.
        limits: (K,) largest number of drafts from each step.
    """

    stacked = True

    def __init__(self, model: Denoiser, chain: GaussianChain, chunks: Chunks, limits: np.ndarray):
        state = chunks.state
        self.model, self.chain, self.cond, self.source, self.limits = model, chain, chunks.cond, chunks.noise, limits
        self.state, self.device, self.dtype, self.shape = state, state.device, state.dtype, state.shape[1:]
        self.timesteps = chain.timesteps_on(self.device)
        self.rows = np.arange(len(state))
        self.position = np.zeros(len(state), np.int64)
        self.tally = Tally(len(state), len(chain))
        self.finished = torch.empty_like(state)
        self.trace = state.new_empty(len(chain) + 1, *state.shape) if chunks.return_states else None
        if self.trace is not None:
            self.trace[0] = state
        self.redraw()

    @property
    def unfinished(self) -> bool:
        """Whether rows are left."""
        return bool((self.position < len(self.chain)).any())

    def redraw(self) -> None:
        """See `Problem.redraw`: noise (B, K, H, D), and uniform (B, K, 2) for decisions and for redraws.

        Each row draws for all K steps, however many drafts it has, so its numbers do not depend on its neighbours.
        """
        rows, count = torch.from_numpy(self.rows), len(self.chain)
        self.noise = self.source.normal(count, *self.shape, rows=rows)
        self.uniform = self.source.uniform(count, 2, rows=rows)

    def open(self) -> BatchWindow:
        """See `Problem.open`."""
        width = self.limits[self.position]
        longest, count = int(width.max()), len(self.chain)
        if (self.position == self.position[0]).all():
            first, valid = int(self.position[0]), None
            steps = torch.arange(first, first + longest + 1, device=self.device).expand(len(self.rows), -1)
        else:
            first, reach = None, np.arange(longest + 1)
            steps = upload(torch.from_numpy((self.position[:, None] + reach).clip(max=count - 1)), self.device)
            valid = None if (width == longest).all() else reach <= width[:, None]
        window = BatchWindow(self.state, steps, self.state, self.state, width, valid, first)
        at = cells(window.index())
        window.noise, window.uniforms = self.noise[at], self.uniform[at]
        return window

    def evaluate_root(self, window: BatchWindow) -> Tensor:
        """See `Problem.evaluate_root`."""
        return self._call(window.root[:, None], window.index(0, 1))[:, 0]

    def follow(self, window: BatchWindow, x0: Tensor, root_x0: Tensor | None = None) -> Drafts:
        """See `Problem.follow`."""
        chain, steps = self.chain, window.index(0, window.drafts)
        additions = chain.drift(x0, steps) + chain.shock(window.noise[:, : window.drafts], steps)
        states = torch.cat([window.root[:, None], chain.rollout(window.root, additions, steps)], dim=1)
        known = None
        if root_x0 is not None:
            mask = np.zeros(states.shape[:2], bool)
            mask[:, 0] = True
            known = Known(mask, root_x0[:, None].expand_as(states))
        return Drafts(states, x0, known)

    def evaluate(self, window: BatchWindow, drafts: Drafts) -> Tensor:
        """See `Problem.evaluate`; zero beyond the window of a row."""
        known = drafts.known
        if known is None:
            return self._call(drafts.states, window.index() if window.valid is None else window.steps, window.valid)
        if window.valid is None and known.mask[:, 0].all() and not known.mask[:, 1:].any():
            below = self._call(drafts.states[:, 1:], window.index(1))
            return torch.cat([known.x0[:, :1], below], dim=1)
        wanted = ~known.mask if window.valid is None else window.valid & ~known.mask
        mask = upload(torch.from_numpy(known.mask), self.device)[..., None, None]
        return torch.where(mask, known.x0, self._call(drafts.states, window.steps, wanted))

    def _call(self, states: Tensor, steps: Steps, wanted: np.ndarray | None = None) -> Tensor:
        """Return x0 at some states, in one call.

        Args:
            states: (B, N, H, D).
            steps: (B, N), or a range of N steps if all rows are evaluated.
            wanted: (B, N) bool, the states to evaluate; None: all.

        Returns:
            (B, N, H, D); zero where not wanted.
        """
        batch, count = states.shape[:2]
        if batch * count == 0:
            return torch.zeros_like(states)
        if wanted is None:
            self.tally.call(self.rows, count)
            timesteps = self.timesteps[steps].expand(batch, count).flatten()
            cond = None if self.cond is None else self.cond.repeat_interleave(count, dim=0)
            output = self.model(states.flatten(0, 1), timesteps, cond)
            return self.chain.x0(output.view_as(states), states, steps)
        assert isinstance(steps, Tensor)
        self.tally.call(self.rows, wanted.sum(1))
        row, column = (upload(torch.from_numpy(index), self.device) for index in wanted.nonzero())
        x0 = torch.zeros_like(states)
        if len(row):
            chosen, at = states[row, column], steps[row, column]
            cond = None if self.cond is None else self.cond[row]
            output = self.model(chosen, self.timesteps[at], cond)
            x0[row, column] = marked(self.chain.x0(output, chosen, at), output)
        return x0

    def gaps(
        self, window: BatchWindow, drafts: Drafts, x0: Tensor
    ) -> tuple[Floats, Floats, Floats, Floats, np.ndarray]:
        """See `Problem.gaps`. The only place in a round that waits for the device."""
        width = window.drafts
        noise = window.noise[:, :width] if drafts.noise is None else drafts.noise
        difference = self.chain.gap(x0[:, :width], drafts.x0, window.index(0, width))
        delta, coordinate = along_gaps(difference, noise)
        finite = x0.flatten(2).sum(-1).isfinite()
        table = torch.stack([pad(delta, (0, 1)), pad(coordinate, (0, 1)), finite, *window.uniforms.unbind(-1)])
        numbers = table.cpu().double().numpy()
        self._check_finite(numbers[2] > 0, drafts.states, window)
        delta, coordinate, _, uniform, second = numbers[:, :, :width]
        return delta, coordinate, uniform, second, window.width

    def commit(self, window: BatchWindow, drafts: Drafts, x0: Tensor, verdict: Verdict) -> None:
        """See `Problem.commit`."""
        chain, width, accepted = self.chain, window.drafts, verdict.accepted
        if drafts.noise is not None:
            at = cells(window.index(0, width))
            self.noise = self.noise.clone()
            self.noise[at] = drafts.noise
            window.noise = torch.cat([drafts.noise, window.noise[:, width:]], dim=1)
        step, noise = pick(window.steps, accepted), pick(window.noise, accepted)
        mean = chain.mean(pick(drafts.states, accepted), pick(x0, accepted), step)
        if width:
            # Move the noise along the gap to its new coordinate; the parts orthogonal to it keep their distribution.
            last = accepted.clip(max=width - 1)
            gap = chain.gap(pick(x0, last), pick(drafts.x0, last), pick(window.steps, last)).flatten(1)
            length = torch.linalg.vector_norm(gap, dim=1, keepdim=True).clamp(min=TINY)
            shift = upload(torch.from_numpy(verdict.shift), self.device).to(gap.dtype)[:, None]
            noise = noise + (shift * (gap / length)).view_as(noise)
        self.state = mean + chain.shock(noise, step)
        self.tally.round(self.rows, self.position, window.width, accepted)
        if self.trace is not None:
            self._record(drafts.states, accepted)
        self.position = self.position + accepted + 1

    def _record(self, states: Tensor, accepted: np.ndarray) -> None:
        """Write the committed states into the trace (K+1, B, H, D)."""
        assert self.trace is not None
        row, column = np.nonzero(np.arange(states.shape[1] - 1) < accepted[:, None])
        there = (row, column + 1, self.position[row] + column + 1, self.rows[row])
        at = (upload(torch.from_numpy(part), self.device) for part in (*there, self.position + accepted + 1, self.rows))
        row_at, column_at, step, chunk, next_step, every = at
        self.trace[step, chunk] = states[row_at, column_at]
        self.trace[next_step, every] = self.state

    def leave(self) -> Tensor | None:
        """See `Problem.leave`."""
        done = self.position == len(self.chain)
        if not done.any():
            return None
        left = np.flatnonzero(~done)
        ended, place, index = (
            upload(torch.from_numpy(part), self.device) for part in (np.flatnonzero(done), self.rows[done], left)
        )
        self.finished[place] = self.state[ended]
        self.rows, self.position = self.rows[left], self.position[left]
        self.state, self.noise, self.uniform = self.state[index], self.noise[index], self.uniform[index]
        self.cond = None if self.cond is None else self.cond[index]
        return index

    def parent(self, x0: Tensor, verdict: Verdict) -> Tensor:
        """See `Problem.parent`."""
        return pick(x0, verdict.accepted)

    def sample(self) -> Sample:
        """See `Problem.sample`."""
        return Sample(self.finished, self.tally.statistics(), self.trace)

    def _check_finite(self, finite: np.ndarray, states: Tensor, window: BatchWindow) -> None:
        """Raise a clear error if the network gave NaN or infinity at a state of the window."""
        bad = ~finite if window.valid is None else ~finite & window.valid
        if bad.any():
            steps = window.steps.cpu().numpy()
            step = int(steps[bad].min())
            given = states.flatten(2).sum(-1).isfinite().cpu().numpy()[bad & (steps == step)]
            raise not_finite(self.chain, step, bool(given.all()))
