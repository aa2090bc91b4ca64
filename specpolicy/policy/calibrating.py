"""`specpolicy.calibrate`: calibrate a denoiser on conditions, or a whole policy on observations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.policy.base import Policy
from specpolicy.policy.diffusion_policy import DiffusionPolicy
from specpolicy.samplers import Calibration
from specpolicy.samplers import calibrate as calibrate_denoiser
from specpolicy.samplers.densities import check_condition, check_denoiser
from specpolicy.samplers.recycled.calibration import Effort

PART = 64  # observations that are encoded at a time
INVENTED_BYTES = 2**29  # most memory of invented conditions, which are long where images and texts are encoded


def calibrate(
    denoiser: Any,
    chain: GaussianChain | Mapping[str, Any] | None = None,
    shape: tuple[int, int] | None = None,
    cond: Tensor | None = None,
    generator: torch.Generator | None = None,
    effort: Effort | None = None,
    progress: Any = lambda what, done, total: None,
    known: Calibration | None = None,
    observations: Mapping[str, Any] | None = None,
) -> Calibration:
    """Calibrate `recycled`: speed only, never its distribution. `stitching=linear` draws by the covariance found here.

    Two forms: `calibrate(denoiser, chain, shape, cond)` and `calibrate(policy, observations)`. The second one encodes
    the observations, chooses an effort that fits the policy, and sets `policy.calibration`. The calibration serves the
    policy in memory that it was read from, too: `wrap(policy, sampler="recycled", calibration=calibration)`.

    Args:
        denoiser: see `specpolicy.sample`; or a `DiffusionPolicy`.
        chain: of the denoiser; or for a policy its observations.
        shape: (H, D) of a chunk, for a denoiser.
        cond: (M, ...) conditions the denoiser meets in use; None for one without conditions.
        generator: source of all draws.
        effort: see `Effort`; by default that of `specpolicy calibrate`, half an hour to an hour on two cores for small
            networks. `Effort(passes=())` leaves the student out.
        progress: called with the stage, the amount done and the total amount.
        known: an earlier calibration. Nothing is learnt then, only plans for this machine are made.
        observations: for a policy {key: (N, To, ...)}, what it meets in use, as `predict` takes it. More of them, and
            more varied ones, give a better student. The last tenth is kept aside to choose sweeps and draft lengths, so
            keep those of one episode together.

    Raises:
        SpecpolicyError: fewer than 20 conditions or observations; a chain that cannot be speculated on exactly; `known`
            belongs to another network; arguments of the other form.
    """
    check_condition(cond)
    if not isinstance(generator, torch.Generator | None):
        raise SpecpolicyError(f"generator is a {type(generator).__name__}: give a torch.Generator, or None")
    if not isinstance(denoiser, Policy):
        if not isinstance(chain, GaussianChain) or shape is None or observations is not None:
            raise SpecpolicyError("calibrate(denoiser, chain, shape=(H, D), cond=...): give the chain and the shape")
        check_denoiser(denoiser)
        return calibrate_denoiser(denoiser, chain, shape, cond, generator, effort or Effort(), progress, known)
    policy, given = denoiser, chain if observations is None else observations
    if not isinstance(policy, DiffusionPolicy):
        raise SpecpolicyError("this policy decodes action tokens: `specpolicy calibrate` calibrates it")
    if not isinstance(given, Mapping) or shape is not None or cond is not None:
        raise SpecpolicyError(
            "calibrate(policy, observations): give {key: (N, frames, ...)}; chain, shape and conditions are the "
            "policy's"
        )
    network, found = policy.engine or policy.denoiser, encoded(policy, given)
    effort = fitting(found, policy.chain) if effort is None else effort
    calibration = calibrate_denoiser(
        network, policy.chain, policy.sample_shape, found, generator, effort, progress, known
    )
    calibration.fingerprint = policy.fingerprint  # covers its encoder, too
    policy.calibration = calibration
    return calibration


def fitting(cond: Tensor, chain: GaussianChain) -> Effort:
    """Return the default effort without what does not fit: more invented conditions, like `cond` (M, ...), than memory
    shall hold, and chains of more steps than this one."""
    effort = Effort()
    invented = min(effort.invented, INVENTED_BYTES // (4 * cond[0].numel()))
    return replace(effort, invented=invented, steps=tuple(steps for steps in effort.steps if steps < len(chain)))


@torch.no_grad()
def encoded(policy: Policy, observations: Mapping[str, Any], seed: int = 0) -> Tensor:
    """Return the conditions (N, ...) of observations {key: (N, To, ...)}, as they come in use.

    Raises:
        SpecpolicyError: more observations of one key than of another; see `Policy.encode`.
    """
    numbers = {key: len(observations[key]) for key in policy.observation_keys if key in observations}
    if len(set(numbers.values())) > 1:
        found = ", ".join(f"{number} of '{key}'" for key, number in numbers.items())
        raise SpecpolicyError(f"calibrate(policy, observations): {found}: give as many of each key")
    starts = range(0, max([1, *numbers.values()]), PART)
    parts = [
        policy.encode({key: value[start : start + PART] for key, value in observations.items()}) for start in starts
    ]
    return as_in_use(policy, torch.cat(parts), seed)


@torch.no_grad()
def as_in_use(policy: Policy, cond: Tensor, seed: int = 0) -> Tensor:
    """Return conditions (N, ...) as they come in use: a policy that continues actions is given more or fewer of its
    own."""
    prefix = getattr(policy, "prefix", None)
    if prefix is None:
        return cond
    generator, draw = torch.Generator().manual_seed(seed), policy.bound(policy.quick_sampler)
    parts = [prefix.some(part, draw(len(part), part, generator).actions, generator) for part in cond.split(PART)]
    return torch.cat(parts)
