"""Picard iteration, ParaDiGMS (Shih et al. 2023). Approximate: a baseline, not an exact sampler."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, SampleStatistics, check_finite


@dataclass(frozen=True)
class Picard:
    """Sweeps over a sliding window of the sequential path until it stops changing. Its law is only near the chain's.

    All noises are drawn first, which fixes the path. A sweep evaluates the guessed states of the window in one call
    and rolls the path out anew; leading states that moved by at most `tolerance` times the noise of their step (root
    mean square over the chunk) are taken as final. The batch advances together, by its slowest row.

    tolerance: 0 never stops early, so that the path is the sequential one.
    window: states a sweep evaluates at most; None: all that are left.
    """

    tolerance: float = 0.1
    window: int | None = None
    steps: int | None = None
    name: str = "picard"

    def run(
        self,
        denoiser: Denoiser,
        chain: GaussianChain,
        state: Tensor,
        cond: Tensor | None,
        noise: NoiseSource,
        return_states: bool = False,
    ) -> Sample:
        """See `Sampler.run`."""
        chain = chain if self.steps is None else chain.strided(self.steps)
        count, batch = len(chain), len(state)
        shocks = chain.shock(noise.normal(count, *state.shape[1:]), slice(0, count))
        # Guess: the noise fades away and nothing is known of the chunk.
        every = torch.arange(count, device=state.device).expand(batch, count)
        states = torch.cat([state[:, None], chain.rollout(state, shocks, every)], dim=1)
        # The state after step n may move by this much; the noise of the last step is zero, so use the one before.
        scale = torch.where(chain.sigma > 0, chain.sigma, chain.sigma[max(count - 2, 0)])
        if not bool((chain.sigma > 0).any()):  # DDIM without noise: what is left of the initial one is the measure
            left = (1 - chain.alpha_bar).sqrt()
            scale = torch.cat([left[1:], left[-1:]])
        scale = scale.to(state.device, state.dtype)
        done = calls = rows = 0
        while done < count and batch:
            stop = count if self.window is None else min(count, done + self.window)
            steps = every[:, done:stop]
            width = stop - done
            timesteps = chain.timesteps_on(state.device)[steps].flatten()
            each = None if cond is None else cond.repeat_interleave(width, dim=0)
            output = denoiser(states[:, done:stop].flatten(0, 1), timesteps, each)
            x0 = chain.x0(output.view(batch, width, *state.shape[1:]), states[:, done:stop], steps)
            calls, rows = calls + 1, rows + width
            new = chain.rollout(states[:, done], chain.drift(x0, steps) + shocks[:, done:stop], steps)
            moved = (new - states[:, done + 1 : stop + 1]).flatten(2).square().mean(-1).sqrt() / scale[done:stop]
            states[:, done + 1 : stop + 1] = new
            if stop < count:  # carry the change on to the states that no sweep has reached
                states[:, stop + 1 :] = chain.rollout(states[:, stop], shocks[:, stop:], every[:, stop:])
            settled = (moved <= self.tolerance).all(dim=0).long().cumprod(dim=0)
            # Of x0, not of the states: the triangular product spreads what is not finite over the whole window.
            checksums = x0.flatten(2).sum((0, 2))
            advance, is_finite = torch.stack([settled.sum(), torch.isfinite(checksums).all().long()]).tolist()
            if not is_finite:
                by_step = torch.zeros(count, dtype=x0.dtype, device=x0.device)
                by_step[done:stop] = checksums
                check_finite(by_step, chain.timesteps)
            # The first state of a window follows from an exact one and is always final.
            done += max(int(advance), 1)
        statistics = SampleStatistics(torch.full((batch,), calls), torch.full((batch,), rows))
        return Sample(states[:, -1], statistics, states.transpose(0, 1) if return_states else None)
