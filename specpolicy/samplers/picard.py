"""Picard iteration, ParaDiGMS (Shih et al. 2023). Approximate: a baseline, not an exact sampler."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.model import Model
from specpolicy.samplers.base import (
    Chunks,
    Draw,
    Sample,
    Sampler,
    SampleStatistics,
    Setting,
    check_finite,
    marked,
)
from specpolicy.samplers.options import check_amounts, check_counts


@dataclass(frozen=True)
class Picard(Sampler):
    """Sweeps over a sliding window of the sequential path until it stops changing. Its distribution is only near the
    chain's.

    All noises are drawn first, which fixes the path. A sweep evaluates the guessed states of the window in one call and
    rolls the path out anew. Leading states that moved by at most `tolerance` times the noise of their step (root mean
    square over the chunk) are final. The batch advances together, at the pace of its slowest row.

    Attributes:
        tolerance: 0 never stops early, so the path is the sequential one.
        window: most states evaluated in a sweep; None: all that are left.
        steps: length of a shorter chain of the same policy, which has another distribution; None: the policy's own.
    """

    name: ClassVar[str] = "picard"

    tolerance: float = 0.1
    window: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        check_amounts(self, "tolerance")
        check_counts(self, "window", "steps")

    def target(self, chain: GaussianChain) -> GaussianChain:
        """See `Sampler.target`."""
        return chain if self.steps is None else chain.strided(self.steps)

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        chain = self.target(setting.chain)
        count, shape = len(chain), setting.shape
        scale = _scale(chain).to(setting.device, setting.dtype)

        def draw(model: Model, chunks: Chunks) -> Sample:
            batch = len(chunks.state)
            shocks = chain.shock(chunks.noise.normal(count, *shape), slice(0, count))
            # First guess: the noise fades and nothing is known of the chunk.
            guess = chain.rollout(chunks.state, shocks, slice(0, count))
            states = torch.cat([chunks.state[:, None], guess], dim=1)
            done = sweeps = rows = 0
            while done < count and batch:
                stop = count if self.window is None else min(count, done + self.window)
                at = slice(done, stop)
                x0 = _evaluate(model, chunks.cond, chain, states[:, at], at)
                sweeps, rows = sweeps + 1, rows + stop - done
                new = chain.rollout(states[:, done], chain.drift(x0, at) + shocks[:, at], at)
                moved = (new - states[:, done + 1 : stop + 1]).flatten(2).square().mean(-1).sqrt() / scale[at]
                states[:, done + 1 : stop + 1] = new
                if stop < count:  # carry the change on to the states that no sweep has reached
                    states[:, stop + 1 :] = chain.rollout(states[:, stop], shocks[:, stop:], slice(stop, count))
                settled = (moved <= self.tolerance).all(dim=0).long().cumprod(dim=0)
                # Check x0, not the states: the triangular product spreads a NaN over the whole window.
                checksums = x0.flatten(2).sum((0, 2))
                advance, is_finite = torch.stack([settled.sum(), torch.isfinite(checksums).all().long()]).tolist()
                if not is_finite:
                    by_step = torch.zeros(count, dtype=x0.dtype, device=x0.device)
                    by_step[at] = checksums
                    check_finite(by_step, chain.timesteps)
                # The first state of a window follows from an exact one and is always final.
                done += max(int(advance), 1)
            statistics = SampleStatistics(torch.full((batch,), sweeps), torch.full((batch,), rows))
            return Sample(states[:, -1], statistics, states.transpose(0, 1) if chunks.return_states else None)

        return draw


def _scale(chain: GaussianChain) -> Tensor:
    """(K,) allowed change of the state after each step, in units of the tolerance."""
    if not bool((chain.sigma > 0).any()):  # DDIM without noise: measure against what is left of the initial noise
        left = (1 - chain.alpha_bar).sqrt()
        return torch.cat([left[1:], left[-1:]])
    # The noise of the last step is zero, so use the one before.
    return torch.where(chain.sigma > 0, chain.sigma, chain.sigma[max(len(chain) - 2, 0)])


def _evaluate(model: Model, cond: Tensor | None, chain: GaussianChain, states: Tensor, steps: slice) -> Tensor:
    """x0 (B, W, H, D) at `states`, in one call."""
    batch, width = states.shape[:2]
    timesteps = chain.timesteps_on(states.device)[steps].repeat(batch)
    each = None if cond is None else cond.repeat_interleave(width, dim=0)
    output = model(states.flatten(0, 1), timesteps, each)
    output = output.view_as(states)
    return marked(chain.x0(output, states, steps), output)
