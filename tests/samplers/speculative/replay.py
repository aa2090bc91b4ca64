"""Runs of the loop whose noises are given step by step, with every proposal on record."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specpolicy.samplers.base import Chunks
from specpolicy.samplers.rounds.batch import Batch
from specpolicy.samplers.rounds.host_chain import HostChain
from specpolicy.samplers.rounds.single import Single
from specpolicy.samplers.speculative.drafters import Drafter
from specpolicy.samplers.speculative.loop import check_exact, longest_windows, speculate


class Table:
    """A source of noise that hands out given numbers: `noise` (B, K, H, D) and `uniform` (B, K, 2), the same ones
    whenever asked; or lists of both, the next one each time. `joins`: a list of (B, K), for drafters that decide about
    each step anew in every round, the next one each time."""

    def __init__(self, noise, uniform, joins=()):
        self.noise, self.uniforms, self.joins = noise, uniform, list(joins)
        self.asked = {"noise": 0, "uniform": 0, "joins": 0}

    @classmethod
    def draw(cls, seed, batch, count, shape, rounds=None, dtype=torch.float32):
        """Random numbers, anew for each of `rounds` if given."""
        generator = torch.Generator().manual_seed(seed)
        noise = [torch.randn(batch, count, *shape, generator=generator, dtype=dtype) for _ in range(rounds or 1)]
        uniform = [torch.rand(batch, count, 2, generator=generator, dtype=torch.float64) for _ in noise]
        joins = [torch.rand(batch, count, generator=generator, dtype=torch.float64) for _ in range(count)]
        return cls(noise, uniform, joins) if rounds else cls(noise[0], uniform[0], joins)

    def normal(self, *shape, rows=None):
        """See `NoiseSource.normal`."""
        return self._next("noise", self.noise, rows)

    def uniform(self, *shape, rows=None):
        """See `NoiseSource.uniform`."""
        kind, numbers = ("uniform", self.uniforms) if len(shape) == 2 else ("joins", self.joins)
        return self._next(kind, numbers, rows)

    def _next(self, kind, numbers, rows):
        if isinstance(numbers, list):
            numbers = numbers[self.asked[kind]]
        self.asked[kind] += 1
        return numbers if rows is None else numbers[rows]


@dataclass
class Round:
    """What one row saw of a round: the step its root is at, `x0`, `states` and `noise` of its drafts (W, H, D), which
    states were known, and how many were accepted."""

    start: int
    root: Tensor
    x0: Tensor
    states: Tensor
    noise: Tensor
    known: Tensor
    accepted: int = -1


class Passed(Exception):
    """A run has got to a round that begins at `start`, behind the last step that is looked at."""

    def __init__(self, start: int):
        self.start = start


class Recorder(Drafter):
    """Another drafter, whose proposals for each row it writes down: `rounds[row]`. `until`: see `replay`."""

    def __init__(self, inner: Drafter, until: int | None = None):
        self.inner, self.rounds, self.until = inner, {}, until
        self.name, self.reuses_noise = inner.name, inner.reuses_noise  # type: ignore[misc]

    def begin(self, problem):
        """See `Drafter.begin`."""
        return self.inner.begin(problem)

    def draft(self, memory, problem, window):
        """See `Drafter.draft`."""
        start = int(window.steps[0, 0]) if problem.stacked else window.first
        if self.until is not None and start > self.until:
            raise Passed(start)
        drafts = self.inner.draft(memory, problem, window)
        noise = window.noise if drafts.noise is None else drafts.noise
        if not problem.stacked:
            known = np.zeros(window.drafts, bool) if drafts.known is None else drafts.known.mask[1:]
            parts = window.root, drafts.x0, drafts.states[1:], noise[: window.drafts]
            root, *rest = (torch.from_numpy(part.reshape(*part.shape[:-1], *problem.shape).copy()) for part in parts)
            self.rounds.setdefault(0, []).append(Round(window.first, root, *rest, torch.from_numpy(known.copy())))
            return drafts
        for place, row in enumerate(problem.rows.tolist()):
            width = int(window.width[place])
            known = np.zeros(width, bool) if drafts.known is None else drafts.known.mask[place, 1 : width + 1]
            parts = drafts.x0[place, :width], drafts.states[place, 1 : width + 1], noise[place, :width]
            root, *rest = (part.clone() for part in (window.root[place], *parts))
            one = Round(int(window.steps[place, 0]), root, *rest, torch.from_numpy(known.copy()))
            self.rounds.setdefault(row, []).append(one)
        return drafts

    def learn(self, memory, problem, window, drafts, x0, verdict):
        """See `Drafter.learn`."""
        return self.inner.learn(memory, problem, window, drafts, x0, verdict)

    def keep(self, memory, index):
        """See `Drafter.keep`."""
        return self.inner.keep(memory, index)


def replay(denoiser, chain, state, cond, table, drafter, verifier, window=None, single=False, until=None):
    """(the sample, {row: its rounds}) of a run with the numbers of `table`; `single`: of one chunk, in numpy. `until`:
    one chunk's run ends before the first round that begins behind this step, and then without a sample."""
    recorder, limits = Recorder(drafter, until), longest_windows(window, len(chain))
    check_exact(chain, drafter, verifier)
    chunks = Chunks(state, cond, table, return_states=True)
    with torch.inference_mode():
        if single:
            problem = Single(denoiser, HostChain(chain), chunks, limits)
        else:
            problem = Batch(denoiser, chain, chunks, limits)
        try:
            out = speculate(problem, recorder, verifier)
        except Passed as passed:
            rounds = recorder.rounds[0]
            for one, start in zip(rounds, [*(later.start for later in rounds[1:]), passed.start], strict=True):
                one.accepted = start - one.start - 1
            return None, recorder.rounds
    for number, accepted in enumerate(out.stats.accepted):
        for row, rounds in recorder.rounds.items():
            if number < len(rounds):
                rounds[number].accepted = int(accepted[row])
    return out, recorder.rounds
