"""The loss for a policy."""

from collections.abc import Callable, Mapping
from typing import Any

from specpolicy.policy_base import Policy
from specpolicy.training.continuing import Continuing
from specpolicy.training.flowing import Flowing
from specpolicy.training.loss import Denoising, Objective, Unmasking
from specpolicy.training.regressing import Regressing

OBJECTIVES: Mapping[str, Callable[[Any], Objective]] = {
    "diffusion": Denoising,
    "flow": Flowing,
    "mip": Regressing,
    "tokens": Unmasking,
}


def make_objective(policy: Policy) -> Objective:
    """Return the objective for a policy of this kind."""
    return (Continuing if policy.config.prefix else OBJECTIVES[policy.config.objective])(policy)  # type: ignore[arg-type]
