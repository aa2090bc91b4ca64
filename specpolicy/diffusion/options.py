"""The options of a chain and of its training, as they are written in yaml and in a checkpoint."""

from dataclasses import asdict, dataclass
from typing import Literal

import torch

from specpolicy.diffusion.chain import GaussianChain
from specpolicy.diffusion.mip import MIPProcess
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_ranges

MOST_STEPS = 4096


@dataclass(frozen=True)
class DdimOptions:
    """Options of `GaussianChain.with_ddim`."""

    eta: float = 0.0
    reuse_epsilon: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, eta=(0, 1))


@dataclass(frozen=True)
class ChainOptions:
    """Options of `GaussianChain.ddpm`; with `ddim`, a DDIM chain of that many steps."""

    train_steps: int = 100
    steps: int | None = None
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small"
    prediction: Literal["epsilon", "sample", "v_prediction", "v"] = "epsilon"
    clip: float | None = 1.0
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    offset: int = 0
    ddim: DdimOptions | None = None

    def __post_init__(self) -> None:
        check_ranges(self, train_steps=(1, MOST_STEPS), clip=(1e-6, 1e6), offset=(0, MOST_STEPS))
        check_ranges(self, steps=(1, self.train_steps), beta_start=(1e-9, 0.999), beta_end=(1e-9, 0.999))
        if self.beta_start > self.beta_end:
            raise SpecpolicyError(f"beta_start={self.beta_start:g} must not exceed beta_end={self.beta_end:g}")

    def make(self) -> GaussianChain:
        """Make the chain."""
        options = asdict(self)
        del options["ddim"]
        chain = GaussianChain.ddpm(**options)
        return chain if self.ddim is None else chain.with_ddim(len(chain), **asdict(self.ddim))


@dataclass(frozen=True)
class FlowOptions:
    """Options of a flow policy: of `GaussianChain.from_flow`, and how its network is told the time.

    Attributes:
        times: of the grid that chains are made on, equally spaced; shorter chains take some of them.
        steps: of the policy's own chain.
        noise_at: the time of pure noise, 0 or 1.
        sigma_min: noise that is left at the data.
        clip: bound of x0; None: none.
        time_scale: the network's time is multiplied by it.
        time_sampling: of t in training: "uniform" in [0, 1], or "beta", 0.999 (1 - Beta(1.5, 1)), which is more often
            near the noise (Black et al. 2024, pi0, appendix B).
    """

    times: int = 400
    steps: int = 100
    noise_at: Literal[0, 1] = 0
    sigma_min: float = 0.0
    clip: float | None = None
    time_scale: float = 100.0
    time_sampling: Literal["uniform", "beta"] = "uniform"

    def __post_init__(self) -> None:
        check_ranges(self, times=(1, MOST_STEPS), sigma_min=(0, 1), clip=(1e-6, 1e6), time_scale=(1e-3, 1e6))
        check_ranges(self, steps=(1, self.times))

    def make(self) -> GaussianChain:
        """Make the chain."""
        whole = GaussianChain.from_flow(self.times, self.noise_at, self.sigma_min, self.clip)
        return whole.strided(self.steps)


@dataclass(frozen=True)
class MIPOptions:
    """Options of a minimal iterative policy, see `specpolicy.diffusion.mip`.

    Attributes:
        time: t of the second question; it has learnt from chunks with noise of deviation 1 - t.
        clip: bound of both answers; None: none.
        time_scale: the network's time is multiplied by it.
    """

    time: float = 0.9
    clip: float | None = 1.0
    time_scale: float = 100.0

    def __post_init__(self) -> None:
        check_ranges(self, time=(0.01, 0.999), clip=(1e-6, 1e6), time_scale=(1e-3, 1e6))

    def make(self) -> GaussianChain:
        """Make the chain of two steps."""
        return GaussianChain(MIPProcess(clip=self.clip), torch.tensor([1, 0]))
