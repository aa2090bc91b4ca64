"""Log densities of the steps that a sampler took, for training by reinforcement (DPPO: Ren et al. 2024,
arXiv 2409.00588, section 4: each denoising step is an action with a Gaussian density)."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from specpolicy.denoisers.flow import check_flow_denoiser
from specpolicy.diffusion import GaussianChain
from specpolicy.engines.base import Denoiser
from specpolicy.errors import SpecpolicyError
from specpolicy.model import check_output
from specpolicy.parsing import shown


def check_chain(chain: object) -> None:
    """Raise unless it is a chain."""
    if not isinstance(chain, GaussianChain):
        raise SpecpolicyError(
            f"chain is a {type(chain).__name__}: give a GaussianChain, of a diffusers scheduler by "
            "GaussianChain.from_diffusers(scheduler)"
        )


def check_shape(shape: object, names: str) -> None:
    """Raise unless a shape is a whole number for each of the `names`, 1 or more; the first may be 0 if it is "B"."""
    parts = tuple(shape) if isinstance(shape, Iterable) else ()
    wanted = names.split(", ")
    fits = len(parts) == len(wanted) and all(
        isinstance(part, numbers.Integral) and int(part) >= (name != "B")
        for part, name in zip(parts, wanted, strict=True)
    )
    if not fits:
        raise SpecpolicyError(f"shape={str(shape)[:80]}: expected ({names}), whole numbers")


def check_denoiser(denoiser: object) -> None:
    """Raise unless it can be called."""
    if not callable(denoiser):
        raise SpecpolicyError(f"denoiser is a {type(denoiser).__name__}: give a function of (x, t, cond), or a module")


def check_condition(cond: object) -> None:
    """Raise unless it is a tensor with rows, or None."""
    if not isinstance(cond, Tensor | None) or (cond is not None and not cond.ndim):
        what = "tensor without rows" if isinstance(cond, Tensor) else type(cond).__name__
        raise SpecpolicyError(f"cond is a {what}: give a torch.Tensor, (B, ...), or None")


def log_probs(
    denoiser: Denoiser, chain: GaussianChain, states: Tensor, cond: Tensor | None = None, floor: float = 0.0
) -> Tensor:
    """Return log N(next state; mean of the chain's step, sigma^2) of each step and chunk, (K, B) float64.

    The densities are those of the chain, whatever drafts a sampler made on the way, so ratios of two policies are those
    of sequential sampling. All states are evaluated in one batched call of K B rows, and autograd runs through it.

    Args:
        denoiser: the policy whose densities are wanted, which need not be the one that drew the states.
        chain: the chain that was walked; see `Sampler.target` for the one of a sampler.
        states: (K+1, B, H, D), noisiest first: `Sample.states`.
        cond: (B, ...) or (1, ...), which is expanded; None for an unconditional denoiser.
        floor: smaller deviations are raised to it (DPPO's min_logprob_denoising_std, 0.1 there), so that the last steps
            do not decide everything. Steps that then still have no noise have no density: 0.

    Raises:
        SpecpolicyError: states of another chain, a chain without noise, or one of a flow that the denoiser is not
            wrapped for; conditions or an output of another shape.
    """
    check_chain(chain)
    check_condition(cond)
    check_flow_denoiser(denoiser, chain)
    count = len(chain)
    if not isinstance(states, Tensor) or states.ndim != 4 or len(states) != count + 1:
        found = f"of shape {tuple(states.shape)}" if isinstance(states, Tensor) else f"in a {type(states).__name__}"
        raise SpecpolicyError(
            f"states {found}: expected a tensor ({count + 1}, B, H, D), as return_states=True gives them "
            f"for this chain of {count} steps"
        )
    if not (isinstance(floor, numbers.Real) and math.isfinite(floor) and floor >= 0):
        raise SpecpolicyError(f"floor={shown(floor)}: expected a standard deviation, 0 or more")
    sigma = chain.sigma.to(states.device, torch.float64).clamp(min=floor)
    if not bool((sigma > 0).any()):
        raise SpecpolicyError("no step of this chain has noise, so none has a density: use eta above 0, or a floor")
    states, cond = _ordinary(states), _ordinary(cond)
    before, after = states[:-1], states[1:]
    batch = before.shape[1]
    if cond is not None:
        if len(cond) not in (1, batch):
            raise SpecpolicyError(f"cond has {len(cond)} rows, the states are of {batch} chunks: give one row, or each")
        cond = cond.expand(batch, *cond.shape[1:]).repeat(count, *[1] * (cond.ndim - 1))
    timesteps = chain.timesteps_on(states.device).repeat_interleave(batch)
    flat = before.flatten(0, 1)
    output = denoiser(flat, timesteps, cond)
    check_output(output, flat)
    steps = torch.arange(count, device=states.device).repeat_interleave(batch)
    mean = chain.mean(flat, chain.x0(output, flat, steps), steps)
    noise = (after.flatten(0, 1) - mean).double() / sigma.where(sigma > 0, 1).repeat_interleave(batch)[:, None, None]
    size = states[0, 0].numel()
    found = -0.5 * noise.square().sum(dim=(1, 2)).view(count, batch)
    found = found - size * (sigma.where(sigma > 0, 1).log() + 0.5 * math.log(2 * math.pi))[:, None]
    return found.where((sigma > 0)[:, None], 0)


def _ordinary(tensor: Any) -> Any:
    """Return a tensor that autograd may keep: a copy of one that was drawn in inference mode, as samplers draw."""
    if not isinstance(tensor, Tensor) or not tensor.is_inference() or torch.is_inference_mode_enabled():
        return tensor
    return tensor.clone()
