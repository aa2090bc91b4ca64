"""Explicit Runge-Kutta methods for the ODE of a flow model, dx/dt = v(x, t) from noise (t = 0) to data (t = 1).

Flow matching policies are usually sampled so, with Euler's method in about ten steps. There is no noise to speculate
on, and the distribution is another one than that of the ancestral chain with as many steps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.diffusion.flow import FlowProcess
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Draw, Sample, Sampler, Setting, check_finite, repeat_statistics
from specpolicy.samplers.options import check_counts

WHOLE = 1e-6  # levels so near to whole numbers are those


@dataclass(frozen=True)
class Solver(Sampler):
    """A method with `steps` equal steps, given by its Butcher tableau.

    Attributes:
        steps: of the method; each calls the network once per stage.
        places: where in a step each stage is, c.
        weights: for each stage, those of the slopes before it, a; in the end those of the step, b.
    """

    places: ClassVar[tuple[float, ...]]
    weights: ClassVar[tuple[tuple[float, ...], ...]]

    steps: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "steps", optional=False)

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        process = setting.chain.process
        if not isinstance(process, FlowProcess):
            raise SpecpolicyError(
                f"sampler '{self.name}' solves the equation of a flow policy, and this one learnt to denoise "
                f"({process.prediction}): use ddim or dpm_solver"
            )
        start = torch.arange(self.steps, dtype=torch.float64)[:, None]
        progress = (start + torch.tensor(self.places, dtype=torch.float64)) / self.steps
        starts = process.level(progress[:, 0])
        levels = [[_asked(level, setting) for level in row] for row in process.level(progress)]
        scales = (progress.square() + process.noise_scale(progress).square()).sqrt().tolist()
        weights = [[weight / self.steps for weight in row] for row in self.weights]

        def draw(model: Model, chunks: Chunks) -> Sample:
            state, batch = chunks.state, len(chunks.state)  # at t = 0 the flow's state is the chain's
            checksums, states = torch.zeros(self.steps, device=state.device), [state]
            for step, (stages, sizes) in enumerate(zip(levels, scales, strict=True)):
                slopes: list[Tensor] = []
                for stage, (level, scale) in enumerate(zip(stages, sizes, strict=True)):
                    at = _moved(state, weights[stage], slopes) / scale
                    slopes.append(process.sign * model(at, level.expand(batch), chunks.cond))
                state = _moved(state, weights[-1], slopes)
                checksums[step] = state.sum()
                if chunks.return_states:
                    states.append(state)
            check_finite(checksums, starts)
            calls = self.steps * len(self.places)
            found = torch.stack(states) if chunks.return_states else None
            return Sample(process.clipped(state), repeat_statistics(batch, calls), found)

        return draw


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method: one call a step. `Sample.states` are those of the flow."""

    name: ClassVar[str] = "euler"
    places = (0.0,)
    weights = ((), (1.0,))


@dataclass(frozen=True)
class Midpoint(Solver):
    """The midpoint method: two calls a step, an error of second order."""

    name: ClassVar[str] = "midpoint"
    places = (0.0, 0.5)
    weights = ((), (0.5,), (0.0, 1.0))


@dataclass(frozen=True)
class RK4(Solver):
    """The classical method of Runge and Kutta: four calls a step, an error of fourth order."""

    name: ClassVar[str] = "rk4"
    places = (0.0, 0.5, 0.5, 1.0)
    weights = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


def _moved(state: Tensor, weights: list[float], slopes: list[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            state = state + weight * slope
    return state


def _asked(level: Tensor, setting: Setting) -> Tensor:
    """Return a level (1,) as the network is asked for it: one of the grid as a whole number, which engines look up."""
    nearest = level.round()
    if nearest >= 0 and abs(level - nearest) < WHOLE:
        return nearest.long()[None].to(setting.device)
    if setting.continuation is not None:
        raise SpecpolicyError(
            "committed actions are continued at the times of the policy's grid alone, and this sampler asks for "
            f"others: use euler with a number of steps that divides {setting.chain.process.steps}"
        )
    return level.to(setting.device, setting.dtype)[None]
