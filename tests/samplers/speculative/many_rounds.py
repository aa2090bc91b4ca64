"""Rounds of fixed shapes for thousands of chunks at once: the same function of tensors, under `torch.vmap`."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from specpolicy.engines.capture import leaves
from specpolicy.samplers.base import Sample
from specpolicy.samplers.rounds.captured import CapturedRounds
from specpolicy.samplers.rounds.fixed import Round, committed, start
from specpolicy.samplers.speculative.problem import Tally


class ManyRounds(CapturedRounds):
    """The loop of `CapturedRounds` for many chunks: decisions are made for all at once, and finished chunks leave."""

    def __init__(self, chain, drafter, verifier, limits):
        super().__init__(chain, drafter, verifier, limits, capture=None)

    def __call__(self, model, chunks):
        """Draw the chunks."""
        chain, count, batch, network = self.chain, len(self.chain), len(chunks.state), model.denoiser
        rows, position, tally = np.arange(batch), np.zeros(batch, np.int64), Tally(batch, count)
        trace = chunks.state.new_empty(count + 1, batch, *chunks.state.shape[1:])
        one = start(chain, self.drafter, network, replace(chunks, state=chunks.state[:1]), int(self.limits.max()))
        given = {"state": chunks.state}
        if chunks.cond is not None:
            given["cond"] = chunks.cond[:, None]
        values = each(lambda leaf: leaf.expand(batch, *leaf.shape), one)._replace(**given)
        values, first = self._refilled(values, chunks, rows), True
        while len(rows):
            width = self.limits[position]
            size = next(size for size in self.sizes if size >= width.max())
            values, report = for_all(Round(chain, network, self.drafter, size, first), values)
            numbers = report.numpy().transpose(1, 0, 2)
            assert (numbers[2] > 0)[np.arange(size + 1) <= width[:, None]].all()
            delta, coordinate, _, uniform, second = numbers[..., :size]
            verdict = self.verifier.decide(delta, coordinate, uniform, second, width)
            tally.call(rows, width + 1)
            tally.round(rows, position, width, verdict.accepted)
            said = np.stack([verdict.accepted, verdict.shift, width], axis=1).astype(np.float64)
            values, first = values._replace(verdict=torch.from_numpy(said)), False
            position = position + verdict.accepted + 1
            done = position == count
            if done.any():
                ended, _ = for_all(lambda one: (committed(chain, one), one.state), some(values, done))
                trace[:-1, rows[done]] = ended.states[:, :count].transpose(0, 1)
                trace[-1, rows[done]] = ended.state
                values, rows, position = some(values, ~done), rows[~done], position[~done]
            if not self.verifier.keeps_noise and len(rows):
                values = self._refilled(values, chunks, rows)
        return Sample(trace[-1], tally.statistics(), trace if chunks.return_states else None)

    def _refilled(self, values, chunks, rows):
        count, rows = len(self.chain), torch.from_numpy(rows)
        noise = chunks.noise.normal(count, *chunks.state.shape[1:], rows=rows)
        return values._replace(noise=noise, uniform=chunks.noise.uniform(count, 2, rows=rows))


def for_all(function, values):
    """(values, what it says) of a function of one chunk's values, for the values of many."""

    def flat(*parts):
        new, says = function(again(values, iter(parts)))
        return (*leaves(new), says)

    *parts, says = torch.vmap(flat)(*leaves(values))
    return again(values, iter(parts)), says


def some(values, mask):
    """The values of some chunks, (B,) bool."""
    index = torch.from_numpy(np.flatnonzero(mask))
    return each(lambda leaf: leaf[index], values)


def each(function, values):
    """Values with a function applied to each tensor."""
    return again(values, iter([function(leaf) for leaf in leaves(values)]))


def again(values, parts):
    """Values of the same structure, from an iterator over tensors."""
    if values is None:
        return None
    if isinstance(values, Tensor):
        return next(parts)
    made = [again(part, parts) for part in values]
    return type(values)(*made) if hasattr(values, "_fields") else tuple(made)
