"""A diffusion policy of robomimic, exactly and in fewer network calls.

python examples/from_robomimic.py diffusion_policy_trained_models/.../models/model_epoch_600.pth

Nothing of robomimic need be installed. If you hold the policy in memory instead, one line does the same:

    from specpolicy.integrations.robomimic import wrap
    rollout_policy = wrap(rollout_policy, sampler="block")      # your object: its calls now sample through specpolicy
    rollout_policy(ob); print(rollout_policy.last_stats.calls)
"""

import sys

import torch

import specpolicy

if len(sys.argv) != 2:
    sys.exit(__doc__)
policy = specpolicy.load_policy(sys.argv[1])
print(policy.chain)

# The environment's stacked frames go here, one entry per key: (To, D), images (To, C, H, W) in [0, 1].
sizes = {key: (shape,) if isinstance(shape, int) else shape for key, shape in policy.encoder.shapes.items()}
frames = {key: torch.rand(policy.n_obs_steps, *size) for key, size in sizes.items()}

for name in ("ddpm", "block"):  # the policy's own sampler, and an exact one that speculates
    out = policy.predict(frames, sampler=name, generator=torch.Generator().manual_seed(0))
    actions = policy.executable(out.actions)[0]  # what a RolloutPolicy returns, call by call; rotations converted
    print(
        f"{name:6} {int(out.stats.calls)} calls, {1e3 * out.stats.seconds:.0f} ms, first action {actions[0].tolist()}"
    )
