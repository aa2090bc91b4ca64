"""The settings of diffusers' `DDPMScheduler` and `DDIMScheduler`: those that a chain reads, and those it refuses.

The names are those of their constructors in all versions from 0.11 to 0.42. A setting that is not listed here is
refused by its name, because an unknown scheduler would draw from another distribution.
"""

from collections.abc import Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

KINDS = ("DDPM", "DDIM")
READ = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "variance_type",
    "clip_sample",
    "clip_sample_range",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
)
# No chain reproduces these, except at the values at which they do nothing.
ONLY: dict[str, tuple[Any, ...]] = {
    "thresholding": (False, None),  # dynamic: by a quantile of all coordinates, so no step is Gaussian
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False, None),  # its first step has no x0
    "set_alpha_to_one": (True, None),  # else its last step keeps noise
}
WITHOUT_EFFECT = ("dynamic_thresholding_ratio", "sample_max_value")  # parameters of the refused thresholding
VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}


def scheduler_kind(name: str) -> str:
    """Return DDPM or DDIM, for a scheduler's class name or dotted path.

    Raises:
        SpecpolicyError: another scheduler.
    """
    kind = name.rpartition(".")[2].removesuffix("Scheduler")
    if kind not in KINDS:
        raise SpecpolicyError(f"the noise scheduler {name} is not supported: DDPMScheduler and DDIMScheduler are")
    return kind


def check_settings(kind: str, settings: Mapping[str, Any]) -> str:
    """Check that all settings of a scheduler can be reproduced; return our name for the variance of its steps.

    Keys that begin with an underscore are diffusers' own remarks (`_class_name`, `_diffusers_version`).

    Raises:
        SpecpolicyError: a setting that is unknown, or that our Gaussian chains do not have.
    """
    for name, value in settings.items():
        if name in ONLY and not any(_equal(value, one) for one in ONLY[name]):
            raise SpecpolicyError(
                f"{kind}Scheduler with {name}={shown(value)} is not supported: only {ONLY[name][0]} is"
            )
        if name not in (*READ, *ONLY, *WITHOUT_EFFECT) and not name.startswith("_"):
            raise SpecpolicyError(
                f"{kind}Scheduler with {name}={shown(value)} is not supported: this setting is not known"
            )
    variance = settings.get("variance_type") or "fixed_small"
    if variance not in VARIANCES:
        raise SpecpolicyError(f"variance_type '{variance}' is not supported: use one of {', '.join(VARIANCES)}")
    return VARIANCES[variance]


def _equal(value: Any, one: Any) -> bool:
    try:
        return bool(value == one)
    except (ValueError, RuntimeError):  # a table of numbers
        return False
