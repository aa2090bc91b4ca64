"""The training process of flow matching (Lipman et al. 2023, arXiv 2210.02747), read as a diffusion.

In training x_t = t a + n e, n = 1 - (1 - sigma_min) t, for a chunk a, noise e and a time t from 0 (noise) to 1 (data),
and the network learns the velocity v = a - (1 - sigma_min) e. Scaled to unit variance, y = x_t / r with
r = sqrt(t^2 + n^2) is a state of a variance-preserving diffusion,

    abar = t^2 / r^2,   r = 1 / ((1 - sigma_min) sqrt(abar) + sqrt(1 - abar)),   x0 = (1 - sigma_min) r y + n v

so all that holds for steps of a diffusion holds for it. Models whose time runs the other way, as pi0's with
x_t = t e + (1 - t) a, learn -v.
"""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from specpolicy.diffusion.process import TrainingProcess
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

MOST_TIMES = 4096
END = 1e-6  # how far the first and the last time may lie from 0 and 1


@dataclass(frozen=True)
class FlowProcess(TrainingProcess):
    """Flow matching on a grid of times. Its timesteps are levels, numbers of the grid: 0 is the last time before the
    data, T-1 is pure noise.

    Make one with `of`. Levels between whole numbers are times between those of the grid.

    Attributes:
        progress: (T+1,) float64, t from the data, 1, to the noise, 0: entry i+1 is that of level i.
        noise_at: the model's own time at pure noise, 0 or 1.
        sigma_min: noise that is left at the data.
    """

    kind: ClassVar[str] = "flow"

    prediction: str = "velocity"
    clip: float | None = None
    spacing: str = "trailing"
    progress: Tensor = field(default_factory=lambda: torch.tensor([1.0, 0.0], dtype=torch.float64))
    noise_at: float = 0.0
    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if self.clip is not None and not (isinstance(self.clip, numbers.Real) and self.clip > 0):
            raise SpecpolicyError(f"clip must be positive or None, got {self.clip}")

    @classmethod
    def of(
        cls,
        times: int | Sequence[float] | Tensor,
        noise_at: float = 0.0,
        sigma_min: float = 0.0,
        clip: float | None = None,
    ) -> "FlowProcess":
        """Make the process; see `GaussianChain.from_flow`.

        Raises:
            SpecpolicyError: times that do not lead from noise to data, or another number out of its range.
        """
        if noise_at not in (0, 1):
            raise SpecpolicyError(f"noise_at={noise_at}: it is the time of pure noise, 0 (LeRobot's DiT) or 1 (pi0)")
        if not (isinstance(sigma_min, numbers.Real) and 0 <= sigma_min <= 1):
            raise SpecpolicyError(f"sigma_min={shown(sigma_min)}: it must be a number from 0 to 1")
        ascending = _ascending(times, noise_at)
        noise = 1 - (1 - sigma_min) * ascending
        alpha_bar = ascending.square() / (ascending.square() + noise.square())
        if not bool((alpha_bar[:-1] < 1).all() and (alpha_bar.diff() > 0).all()):
            raise SpecpolicyError(
                "two of the times are so close that no noise is left between them in double precision: leave out times "
                f"within {END:g} of the data"
            )
        progress = ascending.flip(0)
        levels = alpha_bar[:-1].flip(0).contiguous()
        return cls(levels, clip=clip, progress=progress, noise_at=float(noise_at), sigma_min=float(sigma_min))

    @property
    def sign(self) -> float:
        """1 where the model learns v = da/dt towards the data, -1 where its time runs to the noise."""
        return 1 - 2 * self.noise_at

    def coefficients(self, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """See `TrainingProcess.coefficients`."""
        scale = 1 / ((1 - self.sigma_min) * alpha_bar.sqrt() + (1 - alpha_bar).sqrt())
        return (1 - self.sigma_min) * scale, self.sign * scale * (1 - alpha_bar).sqrt()

    def visited(self, steps: int) -> Tensor:
        """See `TrainingProcess.visited`. Trailing levels exist for each number of steps: what diffusers makes of
        rounding binds no flow."""
        if self.spacing != "trailing" or not 1 <= steps <= self.steps:
            return super().visited(steps)
        levels = np.round(np.arange(self.steps, 0, -self.steps / steps)).astype(np.int64) - 1
        return torch.from_numpy(levels[:steps].copy())  # arange may round to one more

    def left_by_ddim(self, timesteps: Tensor, steps: int) -> Tensor:
        """See `TrainingProcess.left_by_ddim`: the noise of the next step, as there is no other convention to keep."""
        return self.left(self.alpha_bar[timesteps])

    def noise_scale(self, progress: Tensor) -> Tensor:
        """Return n, the factor of the noise at t."""
        return 1 - (1 - self.sigma_min) * progress

    def level(self, progress: Tensor) -> Tensor:
        """Return the level (...) of each t (...) in [0, 1], float64, between whole numbers where t is between times."""
        ascending, count = self.progress.flip(0), self.steps
        wanted = progress.double().cpu().contiguous()
        above = torch.searchsorted(ascending, wanted, right=True).clamp(1, count)
        start, end = ascending[above - 1], ascending[above]
        return count - (above - 1 + (wanted - start) / (end - start)) - 1


def _ascending(times: int | Sequence[float] | Tensor, noise_at: float) -> Tensor:
    """Return t (T+1,) float64 from 0 to 1, checked."""
    if isinstance(times, numbers.Integral):
        count = int(times)
        if isinstance(times, bool) or not 1 <= count <= MOST_TIMES:
            raise SpecpolicyError(f"times={times}: give a number of steps from 1 to {MOST_TIMES}, or the times")
        return torch.arange(count + 1, dtype=torch.float64) / count
    try:
        grid = torch.as_tensor(times, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        grid = torch.tensor(0.0)
    if grid.ndim == 0:
        raise SpecpolicyError(
            f"times={shown(times)}: give a whole number of steps, or the times as numbers, from noise to data"
        )
    if grid.ndim != 1 or not 2 <= len(grid) <= MOST_TIMES + 1:
        raise SpecpolicyError(
            f"times of shape {tuple(grid.shape)}: give 2 to {MOST_TIMES + 1} numbers, from noise to data"
        )
    grid = 1 - grid if noise_at == 1 else grid.clone()
    ends = abs(float(grid[0])) <= END and abs(float(grid[-1]) - 1) <= END
    grid[0], grid[-1] = 0.0, 1.0
    if not ends or not bool((grid.diff() > 0).all()):
        way = "fall from 1 to 0" if noise_at == 1 else "rise from 0 to 1"
        raise SpecpolicyError(f"times must {way} for noise_at={noise_at:g}: the first is pure noise, the last the data")
    return grid
