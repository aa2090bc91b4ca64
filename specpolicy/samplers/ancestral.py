"""Sequential samplers: one network call per step. These laws are what exact samplers are measured against."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, check_finite, repeat_statistics


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling (Ho et al. 2020, algorithm 2); `steps` shortens the policy's chain: another law."""

    steps: int | None = None
    name: str = "ddpm"

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
        return walk(denoiser, chain, state, cond, noise, return_states)


@dataclass(frozen=True)
class DDIM:
    """DDIM (Song et al. 2021) with `steps` calls: the few-step sampler most people run today; another law."""

    steps: int = 10
    eta: float = 0.0
    name: str = "ddim"

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
        return walk(denoiser, chain.with_ddim(self.steps, self.eta), state, cond, noise, return_states)


def walk(
    denoiser: Denoiser,
    chain: GaussianChain,
    state: Tensor,
    cond: Tensor | None,
    noise: NoiseSource,
    return_states: bool = False,
) -> Sample:
    """Walk the chain from its noisiest step on, one call per step."""
    batch, shape = len(state), state.shape[1:]
    timesteps, noisy = chain.timesteps_on(state.device), (chain.sigma > 0).tolist()
    checksums = torch.zeros(len(chain), device=state.device)
    states = [state]
    for step in range(len(chain)):
        output = denoiser(state, timesteps[step].expand(batch), cond)
        state = chain.mean(state, chain.x0(output, state, step), step)
        if noisy[step]:
            state = state + chain.shock(noise.normal(*shape), step)
        checksums[step] = state.sum()
        if return_states:
            states.append(state)
    check_finite(checksums, chain.timesteps)
    return Sample(state, repeat_statistics(batch, len(chain)), torch.stack(states) if return_states else None)
