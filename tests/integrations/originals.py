"""What the other projects compute, written down from their published algorithms with the schedulers of diffusers."""

import torch
from diffusers import DDIMScheduler, DDPMScheduler


def make_scheduler(settings):
    """The diffusers object of a configuration."""
    kind = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}[settings["_target_"][-13:-9]]
    return kind(**{name: value for name, value in settings.items() if name != "_target_"})


def conditional_sample(network, scheduler, steps, data, known, step_options=None, **condition):
    """Diffusion Policy's loop: overwrite what is known, call the network, step; global random numbers."""
    trajectory = torch.randn(data.shape)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        trajectory[known] = data[known]
        output = network(trajectory, t, **condition)
        trajectory = scheduler.step(output, t, trajectory, **(step_options or {})).prev_sample
    trajectory[known] = data[known]
    return trajectory


@torch.no_grad()
def lowdim_policy(network, cfg, weights, obs):
    """`predict_action` of Diffusion Policy's low-dimensional policies: (action, action_pred), raw units."""
    policy = cfg["policy"]
    scale, offset = (weights[f"normalizer.params_dict.obs.{name}"] for name in ("scale", "offset"))
    nobs = obs * scale + offset
    batch, frames, horizon = len(obs), policy["n_obs_steps"], policy["horizon"]
    action_dim, obs_dim = policy["action_dim"], policy["obs_dim"]
    condition, width = {}, action_dim
    if policy.get("pred_action_steps_only"):
        horizon = policy["n_action_steps"]
    if policy.get("obs_as_local_cond"):
        local = torch.zeros(batch, horizon, obs_dim)
        local[:, :frames] = nobs
        condition = {"local_cond": local}
    elif policy.get("obs_as_global_cond"):
        condition = {"global_cond": nobs.reshape(batch, -1)}
    elif policy.get("obs_as_cond"):
        condition = {"cond": nobs}
    else:
        width += obs_dim
    data, known = torch.zeros(batch, horizon, width), torch.zeros(batch, horizon, width, dtype=torch.bool)
    if width > action_dim:
        data[:, :frames, action_dim:], known[:, :frames, action_dim:] = nobs, True
    scheduler = make_scheduler(policy["noise_scheduler"])
    options = {"eta": policy["eta"]} if "eta" in policy else {}
    chunk = conditional_sample(network, scheduler, policy["num_inference_steps"], data, known, options, **condition)
    scale, offset = (weights[f"normalizer.params_dict.action.{name}"] for name in ("scale", "offset"))
    plan = (chunk[..., :action_dim] - offset) / scale
    if policy.get("pred_action_steps_only"):
        return plan, plan
    transformer = "Transformer" in policy["_target_"]
    start = frames - 1 if transformer or policy.get("oa_step_convention") else frames
    return plan[:, start : start + policy["n_action_steps"]], plan
