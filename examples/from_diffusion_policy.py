"""A policy of real-stanford/diffusion_policy, exactly and in fewer network calls.

python examples/from_diffusion_policy.py data/outputs/.../checkpoints/latest.ckpt

Nothing of diffusion_policy need be installed. If you hold the policy in memory instead, one line does the same:

    from specpolicy.integrations.diffusion_policy import wrap
    policy = wrap(policy, sampler="block")      # your object: predict_action now samples through specpolicy
    policy.predict_action(obs_dict); print(policy.last_stats.calls)
"""

import sys

import torch

import specpolicy

if len(sys.argv) != 2:
    sys.exit(__doc__)
policy = specpolicy.load_policy(sys.argv[1])
print(policy.chain)

# Your robot's last frames go here: {"obs": (To, Do)}, or one entry per key of shape_meta, images in [0, 1].
sizes = {key: (shape,) if isinstance(shape, int) else shape for key, shape in policy.encoder.shapes.items()}
frames = {key: torch.rand(policy.n_obs_steps, *size) for key, size in sizes.items()}

for name in ("ddpm", "block"):  # the policy's own sampler, and an exact one that speculates
    out = policy.predict(frames, sampler=name, generator=torch.Generator().manual_seed(0))
    actions = policy.executable(out.actions)[0]  # what predict_action returns as "action"
    print(
        f"{name:6} {int(out.stats.calls)} calls, {1e3 * out.stats.seconds:.0f} ms, first action {actions[0].tolist()}"
    )
