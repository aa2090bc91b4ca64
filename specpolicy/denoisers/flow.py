"""Flow models as denoisers of a Gaussian chain (`GaussianChain.from_flow`).

The network of a flow model takes x_t = r y and its own time, and `FlowDenoiser` hands it both. Its output stays the
velocity, from which the chain reads x0.

The distribution is that of the chain. It is another one than that of the flow's ODE, except with DDIM at eta = 0, which
is Euler's method (for sigma_min = 0 and without a clip).
"""

import math
import numbers
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from specpolicy.denoisers.rescaled import RescaledDenoiser
from specpolicy.diffusion import GaussianChain
from specpolicy.diffusion.flow import FlowProcess
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown


class FlowDenoiser(RescaledDenoiser):
    """Maps (y (N, H, D), level (N,), cond) to the velocity (N, H, D) that a network predicts at x_t = r y.

    Levels may lie between whole numbers, so the network can be asked at every time of the flow.
    """

    kind: ClassVar[str] = FlowProcess.kind
    progress: Tensor

    def __init__(self, network: Any, process: FlowProcess, time_scale: float = 1.0):
        """Wrap a network.

        Args:
            network: (x_t (N, H, D), time (N,), cond) -> velocity (N, H, D), a module or a function. The time is its own
                one, from `process.noise_at` on, a float.
            process: of the chain.
            time_scale: the time is multiplied by it.
        """
        super().__init__(network)
        self.process, self.time_scale = process, time_scale
        self.register_buffer("progress", process.progress, persistent=False)

    def inputs(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """See `RescaledDenoiser.inputs`."""
        table = self.progress.to(level.device)
        position = level + 1
        if level.is_floating_point():
            before = position.floor().clamp(0, len(table) - 2)
            low = before.long()
            share = (position - before).to(table.dtype)
            progress = torch.lerp(table[low], table[low + 1], share).to(like.dtype)
        else:
            progress = table[position].to(like.dtype)
        process = self.process
        scale = (progress.square() + process.noise_scale(progress).square()).sqrt()
        return scale, self.time_scale * (process.noise_at + process.sign * progress)


def flow_denoiser(velocity: Any, chain: GaussianChain, time_scale: float = 1.0) -> Any:
    """Return the denoiser of a flow model for its chain, as samplers call it.

    Args:
        velocity: (x_t (N, H, D), time (N,), cond) -> (N, H, D), a module or a function: v = a - e for a chain with
            noise_at=0, v = e - a with noise_at=1.
        chain: made by `GaussianChain.from_flow`.
        time_scale: the network's time is multiplied by it.

    Returns:
        A module for a module; a function for a function.

    Raises:
        SpecpolicyError: a chain of a diffusion model, or what is no function, chain or number.
    """
    if not callable(velocity):
        raise SpecpolicyError(f"the velocity is a {type(velocity).__name__}: give a function or module (x, time, cond)")
    if not (isinstance(time_scale, numbers.Real) and math.isfinite(time_scale)):
        raise SpecpolicyError(f"time_scale={shown(time_scale)}: expected a number, which the time is multiplied by")
    process = getattr(chain, "process", None)
    if not isinstance(process, FlowProcess):
        raise SpecpolicyError(f"{chain!r} is no chain of a flow model: make one with GaussianChain.from_flow(times)")
    wrapped = FlowDenoiser(velocity, process, time_scale)
    return wrapped if isinstance(velocity, nn.Module) else wrapped.forward


def check_flow_denoiser(denoiser: Any, chain: GaussianChain) -> None:
    """Raise unless what walks the chain of a flow model is wrapped for it, and nothing that is wrapped walks another
    kind of chain: a bare network would be given states and levels for x_t and times, one wrapped for another grid wrong
    times.

    Raises:
        SpecpolicyError: it is not.
    """
    process = chain.process
    owner = getattr(denoiser, "__self__", denoiser)
    inside = getattr(getattr(owner, "workload", None), "denoiser", owner)  # of an engine
    if not isinstance(process, FlowProcess):
        if isinstance(inside, RescaledDenoiser) and inside.kind != process.kind:
            raise SpecpolicyError(
                f"this denoiser was wrapped for chains of kind '{inside.kind}', and {chain!r} is of another kind: give "
                "the network itself, or the chain that it was wrapped for"
            )
        return
    if not isinstance(inside, FlowDenoiser):
        raise SpecpolicyError(
            "this chain is of a flow model, whose velocity has to be wrapped: give flow_denoiser(velocity, chain)"
        )
    own = inside.process
    same = (own.noise_at, own.sigma_min) == (process.noise_at, process.sigma_min)
    if not (same and torch.equal(own.progress, process.progress)):
        raise SpecpolicyError(
            f"this denoiser was wrapped for a flow of {_described(own)}, the chain is of one of {_described(process)}, "
            "or of other times: give flow_denoiser(velocity, chain)"
        )


def _described(process: FlowProcess) -> str:
    return f"{process.steps} times, noise_at={process.noise_at:g}, sigma_min={process.sigma_min:g}"
