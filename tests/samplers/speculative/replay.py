"""Runs of the loop whose noises are given step by step, with every proposal on record."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.samplers.speculative.drafters import Drafter
from specpolicy.samplers.speculative.loop import speculate


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


class Recorder(Drafter):
    """Another drafter, whose proposals for each row it writes down: `rounds[row]`."""

    def __init__(self, inner: Drafter):
        self.inner, self.rounds = inner, {}
        self.name, self.reuses_noise = inner.name, inner.reuses_noise  # type: ignore[misc]

    def begin(self, problem):
        """See `Drafter.begin`."""
        return self.inner.begin(problem)

    def propose(self, memory, problem, window):
        """See `Drafter.propose`."""
        proposal = self.inner.propose(memory, problem, window)
        for place, row in enumerate(problem.rows.tolist()):
            width = window.drafts if window.valid is None else int(window.valid[place].sum()) - 1
            known = torch.zeros(width, dtype=torch.bool) if proposal.known is None else proposal.known[0][place, :width]
            noise = window.noise if proposal.noise is None else proposal.noise
            drafts = (part[place, :width].clone() for part in (proposal.x0, proposal.states, noise))
            one = Round(int(window.steps[place, 0]), window.root[place].clone(), *drafts, known)
            self.rounds.setdefault(row, []).append(one)
        return proposal

    def learn(self, memory, problem, window, outcome):
        """See `Drafter.learn`."""
        return self.inner.learn(memory, problem, window, outcome)

    def keep(self, memory, index):
        """See `Drafter.keep`."""
        return self.inner.keep(memory, index)


def replay(denoiser, chain, state, cond, table, drafter, verifier, window=None):
    """(the sample, {row: its rounds}) of a run with the numbers of `table`."""
    recorder = Recorder(drafter)
    with torch.inference_mode():
        out = speculate(denoiser, chain, state, cond, table, recorder, verifier, window, return_states=True)
    for number, accepted in enumerate(out.stats.accepted):
        for row, rounds in recorder.rounds.items():
            if number < len(rounds):
                rounds[number].accepted = int(accepted[row])
    return out, recorder.rounds
