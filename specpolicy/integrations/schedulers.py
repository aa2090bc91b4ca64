"""Converts the settings of a diffusers scheduler to the options of our chain."""

from collections.abc import Mapping
from typing import Any

from specpolicy.diffusion.scheduler_settings import check_settings, scheduler_kind
from specpolicy.errors import SpecpolicyError


def chain_config(
    name: str,
    settings: Mapping[str, Any],
    steps: int | None = None,
    eta: float = 0.0,
    reuse_epsilon: bool = True,
) -> dict[str, Any]:
    """Return the field `chain` of config.json for a scheduler of that class name.

    Args:
        name: of the class.
        settings: its constructor's arguments, diffusers' names; missing ones have diffusers' defaults.
        steps: inference steps, all training steps if None. With fewer, a DDPM step goes to the next visited timestep,
            as in diffusers from 0.18 on.
        eta, reuse_epsilon: for DDIM, the arguments of its `step`.

    Raises:
        SpecpolicyError: another scheduler, or a setting that is unknown or that our Gaussian chains do not have.
    """
    kind = scheduler_kind(name)
    variance = check_settings(kind, settings)
    try:
        train_steps = int(settings.get("num_train_timesteps", 1000))
        clips = settings.get("clip_sample", True)
        chain: dict[str, Any] = {
            "train_steps": train_steps,
            "steps": int(train_steps if steps is None else steps),
            "beta_schedule": settings.get("beta_schedule", "linear"),
            "beta_start": float(settings.get("beta_start", 1e-4)),
            "beta_end": float(settings.get("beta_end", 0.02)),
            "variance": variance,
            "prediction": settings.get("prediction_type", "epsilon"),
            "clip": float(settings.get("clip_sample_range", 1.0)) if clips else None,
            "spacing": settings.get("timestep_spacing", "leading"),
            "offset": int(settings.get("steps_offset", 0)),
        }
        if chain["beta_schedule"] == "squaredcos_cap_v2":  # it has no use for them, whatever they are
            del chain["beta_start"], chain["beta_end"]
        if kind == "DDIM":
            chain["ddim"] = {"eta": float(eta), "reuse_epsilon": bool(reuse_epsilon)}
    except (TypeError, ValueError) as error:
        raise SpecpolicyError(f"a setting of its {kind}Scheduler is no number ({error})") from None
    if kind == "DDPM" and (eta or not reuse_epsilon):
        raise SpecpolicyError(
            "eta and use_clipped_model_output are for a DDIMScheduler, the policy has a DDPMScheduler"
        )
    return chain
