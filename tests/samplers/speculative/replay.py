"""Runs of the loop whose noises are given step by step, with every proposal on record."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.samplers.speculative.drafters import Drafter
from specpolicy.samplers.speculative.loop import speculate


class Table:
    """A source of noise that hands out given numbers: `noise` (B, K, H, D) and `uniform` (B, K, 2), the same ones
    whenever asked; or lists of both, the next one each time."""

    def __init__(self, noise, uniform):
        self.noise, self.uniforms = noise, uniform
        self.asked = {"noise": 0, "uniform": 0}

    @classmethod
    def draw(cls, seed, batch, count, shape, rounds=None, dtype=torch.float32):
        """Random numbers, anew for each of `rounds` if given."""
        generator = torch.Generator().manual_seed(seed)
        noise = [torch.randn(batch, count, *shape, generator=generator, dtype=dtype) for _ in range(rounds or 1)]
        uniform = [torch.rand(batch, count, 2, generator=generator, dtype=torch.float64) for _ in noise]
        return cls(noise, uniform) if rounds else cls(noise[0], uniform[0])

    def normal(self, *shape, rows=None):
        """See `NoiseSource.normal`."""
        return self._next("noise", self.noise, rows)

    def uniform(self, *shape, rows=None):
        """See `NoiseSource.uniform`."""
        return self._next("uniform", self.uniforms, rows)

    def _next(self, kind, numbers, rows):
        if isinstance(numbers, list):
            numbers = numbers[self.asked[kind]]
        self.asked[kind] += 1
        return numbers if rows is None else numbers[rows]


@dataclass
class Round:
    """What one row saw of a round: the step its root is at, `x0` (W, H, D) and `states` (W, H, D) of its drafts, and
    how many of these were accepted."""

    start: int
    root: Tensor
    x0: Tensor
    states: Tensor
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
            x0, states = proposal.x0[place, :width].clone(), proposal.states[place, :width].clone()
            one = Round(int(window.steps[place, 0]), window.root[place].clone(), x0, states)
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
