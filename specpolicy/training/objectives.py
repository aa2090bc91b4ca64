"""The loss for a policy."""

from collections.abc import Callable, Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.policy import Policy
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


def make_objective(policy: Policy, uncommitted: float | None = None) -> Objective:
    """Return the objective for a policy of this kind; `uncommitted`: see `TrainingOptions`.

    Raises:
        SpecpolicyError: `uncommitted` for a policy that continues no actions.
    """
    if policy.config.prefix:
        return Continuing(policy, uncommitted)  # type: ignore[arg-type]
    if uncommitted is not None:
        raise SpecpolicyError(
            f"uncommitted={uncommitted:g}: this policy continues no actions: add policy.prefix=8, or leave it out"
        )
    return OBJECTIVES[policy.config.objective](policy)
