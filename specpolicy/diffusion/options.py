"""The options of a chain, as they are written in yaml and in a checkpoint."""

from dataclasses import asdict, dataclass
from typing import Literal

from specpolicy.diffusion.chain import GaussianChain
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
