"""Picard iteration, ParaDiGMS (Shih et al. 2023). Approximate: a baseline, not an exact sampler."""

from dataclasses import dataclass

from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser, NoiseSource, Sample


@dataclass(frozen=True)
class Picard:
    """Sweeps over a sliding window until it stops changing.

    All noises are drawn first, which fixes the sequential path. A sweep evaluates a window of guessed states in one
    call and rolls the path out anew; leading states that moved by less than `tolerance` times their step's sigma
    (root mean square over the chunk) are final.
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
        raise NotImplementedError
