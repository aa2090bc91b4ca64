"""The loss for a policy."""

from collections.abc import Callable, Mapping
from typing import Any

from specpolicy.policy_base import Policy
from specpolicy.training.continuing import Continuing
from specpolicy.training.flowing import Flowing
from specpolicy.training.loss import Denoising, Objective, Unmasking
from specpolicy.training.two_steps import TwoSteps

OBJECTIVES: Mapping[str, Callable[[Any], Objective]] = {"diffusion": Denoising, "tokens": Unmasking}


def make_objective(policy: Policy) -> Objective:
    """Return the objective for a policy of this kind."""
    if policy.config.flow is not None:
        return Flowing(policy)  # type: ignore[arg-type]
    if policy.config.mip is not None:
        return TwoSteps(policy)  # type: ignore[arg-type]
    return Continuing(policy) if policy.config.prefix else OBJECTIVES[policy.kind](policy)  # type: ignore[arg-type]
