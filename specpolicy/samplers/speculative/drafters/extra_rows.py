"""Extra rows: how the network differs from its surrogate along a few directions, measured on the path itself.

Where rows are nearly free, as on a GPU, a call may evaluate more states than the path: at G steps of it, the grid, the
state moved by 1.5 sigma along each of R fixed directions v. The differences tell what the surrogate's Jacobian lacks,

    s_v = ((x0(y + h v) - x0(y)) - (f(y + h v) - f(y))) / h,

and drafts at the grid step and behind it, up to the next grid step, add s_v (v . (y_n - y'_n)) for each v. What is
known at a step comes from that step or from noisier ones, so a draft never knows the noise it is coupled with; to
interpolate between two grid steps would break that.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from specpolicy.samplers.speculative.window import Problem, Window

REACH = 1.5  # h in units of the step's noise
LEVELS = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 85)  # grid levels of a chain of 100 steps, noise rising


@dataclass
class Slopes:
    """`value` (B, G, R, H*D): the slopes s_v found so far, zero where there are none; `grid` (G,): the chain's steps
    they are measured at; `of_step` (K,): the grid step that serves each step, -1 before the first."""

    value: Tensor
    grid: Tensor
    of_step: Tensor

    def keep(self, index: Tensor) -> "Slopes":
        """Those of some rows."""
        return replace(self, value=self.value[index])


class ExtraRows:
    """The directions (R, H*D), of unit length, and where they are tried."""

    def __init__(self, directions: Tensor):
        self.directions = directions

    def begin(self, problem: Problem) -> Slopes:
        """Nothing known yet."""
        self.directions = self.directions.to(problem.device, problem.dtype)
        count, device = len(problem.chain), problem.device
        levels = {max(1, math.ceil(level * count / 100)) for level in LEVELS}
        grid = torch.tensor(sorted(count - 1 - level for level in levels if level < count)).to(device)
        of_step = torch.searchsorted(grid, torch.arange(count, device=device), right=True) - 1
        shape = (len(problem), len(grid), *self.directions.shape)
        return Slopes(torch.zeros(shape, device=device, dtype=problem.dtype), grid, of_step)

    def states(self, slopes: Slopes, problem: Problem, window: Window, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(states (B, G*R, H, D), steps (B, G*R), valid (B, G*R)) to evaluate beside a window's `states`
        (B, W+1, H, D); not valid where the window has no such step."""
        place, inside = self._places(slopes, window)
        rows = torch.arange(len(states), device=states.device)[:, None]
        grid = slopes.grid.expand(len(states), -1)
        size = REACH * problem.chain.sigma.to(problem.device, problem.dtype)[grid][..., None, None]
        moved = states.flatten(2)[rows, place][:, :, None] + size * self.directions
        number = len(self.directions)
        shape = (len(states), -1, *problem.shape)
        return moved.view(shape), grid.repeat_interleave(number, 1), inside.repeat_interleave(number, 1)

    def measure(self, slopes: Slopes, problem: Problem, window: Window, error: Tensor, moved: Tensor) -> Slopes:
        """Slopes from the surrogate's errors on the path, `error` (B, W+1, H*D), and at the moved states,
        `moved` (B, G*R, H*D)."""
        place, inside = self._places(slopes, window)
        rows = torch.arange(len(error), device=error.device)[:, None]
        size = REACH * problem.chain.sigma.to(problem.device, problem.dtype)[slopes.grid][:, None, None]
        found = (moved.view_as(slopes.value) - error[rows, place][:, :, None]) / size
        return replace(slopes, value=torch.where(inside[..., None, None], found, slopes.value))

    def correction(self, slopes: Slopes, steps: Tensor) -> Callable[[Tensor], Tensor]:
        """What to add to a guess at `steps` (B, W), given how far (B, W, H*D) its state is from the evaluated one."""
        served = slopes.of_step[steps]
        rows = torch.arange(len(steps), device=steps.device)[:, None]
        chosen = slopes.value[rows, served.clamp(min=0)] * (served >= 0)[..., None, None]

        def correct(moved: Tensor) -> Tensor:
            along = moved @ self.directions.T
            return torch.einsum("bwr,bwrd->bwd", along, chosen)

        return correct

    @staticmethod
    def _places(slopes: Slopes, window: Window) -> tuple[Tensor, Tensor]:
        """Where the grid's steps are in the window (B, G), and whether they are (B, G)."""
        place = slopes.grid - window.steps[:, :1]
        last = window.drafts if window.valid is None else window.valid.sum(1, keepdim=True).to(place.device) - 1
        inside = (place >= 0) & (place <= last)
        return torch.where(inside, place, 0), inside
