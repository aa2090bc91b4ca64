"""The settings of a diffusers scheduler, as the options of our chain."""

from collections.abc import Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError

# Settings that no chain of ours reproduces, with the values that leave them unused.
UNUSED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False, None),
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False, None),
    "set_alpha_to_one": (True, None),
}
VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}


def chain_config(
    name: str,
    settings: Mapping[str, Any],
    steps: int | None = None,
    eta: float = 0.0,
    reuse_epsilon: bool = True,
) -> dict[str, Any]:
    """The field `chain` of config.json for a scheduler of that class name.

    settings: its constructor's arguments, diffusers' names; what is absent has diffusers' defaults.
    steps: inference steps, all training steps if None. With fewer than those a DDPM step goes to the next visited
    timestep, as in current diffusers. eta, reuse_epsilon: for DDIM, the arguments of its `step`.

    Raises:
        SpecpolicyError: another scheduler, or a setting that no Gaussian chain of ours has.
    """
    kind = name.rpartition(".")[2].removesuffix("Scheduler")
    if kind not in ("DDPM", "DDIM"):
        raise SpecpolicyError(f"the noise scheduler {name} is not supported: DDPMScheduler and DDIMScheduler are")
    for setting, unused in UNUSED.items():
        if settings.get(setting) not in unused:
            raise SpecpolicyError(f"{kind}Scheduler with {setting}={settings[setting]} is not supported")
    variance = settings.get("variance_type") or "fixed_small"
    if variance not in VARIANCES:
        raise SpecpolicyError(f"variance_type '{variance}' is not supported: use one of {', '.join(VARIANCES)}")
    train_steps = int(settings.get("num_train_timesteps", 1000))
    clips = settings.get("clip_sample", True)
    chain: dict[str, Any] = {
        "train_steps": train_steps,
        "steps": int(steps or train_steps),
        "beta_schedule": settings.get("beta_schedule", "linear"),
        "beta_start": float(settings.get("beta_start", 1e-4)),
        "beta_end": float(settings.get("beta_end", 0.02)),
        "variance": VARIANCES[variance],
        "prediction": settings.get("prediction_type", "epsilon"),
        "clip": float(settings.get("clip_sample_range", 1.0)) if clips else None,
        "spacing": settings.get("timestep_spacing", "leading"),
        "offset": int(settings.get("steps_offset", 0)),
    }
    if kind == "DDIM":
        chain["ddim"] = {"eta": float(eta), "reuse_epsilon": reuse_epsilon}
    return chain
