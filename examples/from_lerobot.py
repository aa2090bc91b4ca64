"""A diffusion policy of LeRobot, exactly and in fewer network calls.

python examples/from_lerobot.py outputs/train/.../checkpoints/last/pretrained_model

Nothing of LeRobot need be installed. If you hold the policy in memory instead, one line does the same:

    from specpolicy.integrations.lerobot import wrap
    policy = wrap(policy, sampler="block")      # your object: select_action now samples through specpolicy
    policy.select_action(batch); print(policy.last_stats.calls)
"""

import sys

import torch

import specpolicy

if len(sys.argv) != 2:
    sys.exit(__doc__)
policy = specpolicy.load_policy(sys.argv[1])
print(policy.chain)

# Raw observations go here, by LeRobot's names; the statistics of the checkpoint normalise them. Images: (C, H, W) in
# [0, 1], or bytes as a camera gives them, (H, W, C).
sizes = {key: (shape,) if isinstance(shape, int) else shape for key, shape in policy.encoder.shapes.items()}
frames = {key: torch.rand(policy.n_obs_steps, *size) for key, size in sizes.items()}

for name in ("ddpm", "block"):  # the policy's own sampler, and an exact one that speculates
    out = policy.predict(frames, sampler=name, generator=torch.Generator().manual_seed(0))
    actions = policy.executable(out.actions)[0]  # what predict_action_chunk returns, in the robot's units
    print(
        f"{name:6} {int(out.stats.calls)} calls, {1e3 * out.stats.seconds:.0f} ms, first action {actions[0].tolist()}"
    )
