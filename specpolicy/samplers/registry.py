"""The samplers of diffusion policies by name, and `sample`, which draws with one."""

from dataclasses import replace

import torch
from torch import Tensor

from specpolicy.denoisers.flow import check_flow_denoiser
from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model, device_of, usable_device
from specpolicy.parsing.named import make_named
from specpolicy.samplers.base import Denoiser, Generators, Sample, Sampler, Setting
from specpolicy.samplers.bound import BoundSampler
from specpolicy.samplers.densities import check_chain, check_condition, check_denoiser, check_shape, log_probs
from specpolicy.samplers.dpm_solver import DPMSolver
from specpolicy.samplers.ode import RK4, Euler, Midpoint
from specpolicy.samplers.picard import Picard
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.sequential import DDIM, DDPM
from specpolicy.samplers.speculative.samplers import (
    ASD,
    Block,
    Reflection,
    Residual,
)

SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpm_solver": DPMSolver,
    "euler": Euler,
    "midpoint": Midpoint,
    "rk4": RK4,
    "picard": Picard,
    "asd": ASD,
    "reflection": Reflection,
    "residual": Residual,
    "block": Block,
    "recycled": Recycled,
}


def as_sampler(sampler: str | Sampler) -> Sampler:
    """Return a sampler by its name, or the given one.

    Raises:
        SpecpolicyError: no such sampler, or an object that is not one.
    """
    if isinstance(sampler, str):
        made: Sampler = make_named("sampler", SAMPLERS, sampler, {})
        return made
    if not isinstance(sampler, Sampler):
        raise SpecpolicyError(f"sampler={sampler!r}: give a name, or what specpolicy.make_sampler(name, ...) returns")
    return sampler


def sample(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: tuple[int, int, int],
    cond: Tensor | None = None,
    sampler: str | Sampler = "ddpm",
    generator: Generators = None,
    return_states: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    return_log_probs: bool = False,
) -> Sample:
    """Draw action chunks of `shape` (B, H, D) from a denoiser and its chain: bind the sampler, and draw once.

    Args:
        denoiser: a function of noisy chunks (N, H, D), timesteps (N,) and conditions (N, ...) or None; it returns the
            network's prediction (N, H, D), each row by itself.
        chain: see `GaussianChain`.
        shape: (B, H, D).
        cond: (B, ...) or (1, ...), which is expanded; None for an unconditional denoiser.
        sampler: a name, or a result of `specpolicy.make_sampler`.
        generator: one for the batch, or a sequence of B, one per row.
        return_states: also the states on the way, `Sample.states`.
        device: by default that of `cond`, of the denoiser's parameters, or the CPU.
        dtype: of the states, float32 or float64; half precision would change the distribution.
        return_log_probs: also the log density of every step, `Sample.log_probs`, by one more call of K B rows, and the
            states that they are of.

    Raises:
        SpecpolicyError: log densities of a sampler that draws no steps; shapes that do not fit, a chain that the
            sampler cannot walk, a calibration of another network, values that are not finite.
    """
    if dtype not in (torch.float32, torch.float64):
        raise SpecpolicyError(
            f"dtype={dtype}: states are float32 or float64, in half precision the distribution is another"
        )
    sampler = as_sampler(sampler)
    check_chain(chain)
    check_denoiser(denoiser)
    check_condition(cond)
    check_flow_denoiser(denoiser, chain)
    check_shape(shape, "B, H, D")
    where = usable_device(device) if device is not None else device_of(denoiser, cond)
    setting = Setting(Model(denoiser, where), chain, torch.Size(shape[1:]), dtype=dtype)
    bound = BoundSampler(sampler, setting)
    if not return_log_probs:
        return bound(shape[0], cond, generator, return_states)
    target = sampler.target(chain)
    if target is None:
        raise SpecpolicyError(f"sampler '{sampler.name}' solves an equation: its steps have no densities")
    out = bound(shape[0], cond, generator, return_states=True)
    assert out.states is not None
    with torch.no_grad():
        found = log_probs(denoiser, target, out.states, None if cond is None else cond.to(where))
    return replace(out, log_probs=found)
