"""Sequential samplers: one network call per step. Their distributions are what exact samplers are measured against."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from specpolicy.diffusion import GaussianChain
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Draw, Sample, Sampler, Setting, check_finite, repeat_statistics
from specpolicy.samplers.options import check_amounts, check_counts


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    steps: of a shorter chain of the same policy, which is another distribution; None: the policy's own.
    """

    name: ClassVar[str] = "ddpm"

    steps: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "steps")

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        return walk(setting.chain if self.steps is None else setting.chain.strided(self.steps), setting)


@dataclass(frozen=True)
class DDIM(Sampler):
    """DDIM (Song et al. 2021): the few-step sampler most people run today; another distribution than the policy's.

    steps: calls. eta: how much noise the steps add: none at 0, as much as DDPM's at 1.
    """

    name: ClassVar[str] = "ddim"

    steps: int = 10
    eta: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "steps", optional=False)
        check_amounts(self, "eta")

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        return walk(setting.chain.with_ddim(self.steps, self.eta), setting)


def walk(chain: GaussianChain, setting: Setting) -> Draw:
    """Walks a chain from its noisiest step on, one call per step."""
    timesteps, noisy = chain.timesteps_on(setting.device), (chain.sigma > 0).tolist()

    def draw(model: Model, chunks: Chunks) -> Sample:
        state, batch = chunks.state, len(chunks.state)
        checksums = torch.zeros(len(chain), device=state.device)
        states = [state]
        for step in range(len(chain)):
            output = model(state, timesteps[step].expand(batch), chunks.cond)
            state = chain.mean(state, chain.x0(output, state, step), step)
            if noisy[step]:
                state = state + chain.shock(chunks.noise.normal(*setting.shape), step)
            checksums[step] = state.sum()
            if chunks.return_states:
                states.append(state)
        check_finite(checksums, chain.timesteps)
        return Sample(
            state, repeat_statistics(batch, len(chain)), torch.stack(states) if chunks.return_states else None
        )

    return draw
