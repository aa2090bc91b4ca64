"""Sample your own policy exactly, in fewer network calls.

python examples/your_policy.py data/outputs/.../checkpoints/latest.ckpt              # diffusion_policy
python examples/your_policy.py outputs/train/.../checkpoints/last/pretrained_model   # LeRobot
python examples/your_policy.py .../models/model_epoch_600.pth                        # robomimic
python examples/your_policy.py checkpoints/lift                                      # ours; or wandb:team/project/name

None of these projects has to be installed. For a policy of theirs in memory, one line is enough:

    from specpolicy.integrations.lerobot import wrap    # or .diffusion_policy, .robomimic
    policy = wrap(policy, sampler="block")              # your object, used as before; it samples through specpolicy
    print(policy.last_stats.calls)                      # network calls of its last chunk
"""

import statistics
import sys

import torch

import specpolicy
from specpolicy.demo import implied_noises
from specpolicy.distributions import same_as_normal

CHUNKS = 5
if len(sys.argv) != 2:
    sys.exit(__doc__)
try:
    policy = specpolicy.load_policy(sys.argv[1])
except specpolicy.SpecpolicyError as error:
    sys.exit(str(error))
if policy.kind != "diffusion":
    sys.exit("a policy of action tokens has no chain of noises to compare: specpolicy benchmark measures it")
print(policy.chain)

# Put your robot's last frames here, with the names and units of the data; images as bytes or in [0, 1]. For random
# frames, which are unlike the training data, exact samplers need more calls than for real ones.
source = torch.Generator().manual_seed(0)
frames = {key: torch.rand(policy.frame_shape(key), generator=source) for key in policy.observation_keys}

for name in dict.fromkeys(("ddpm", policy.best_sampler)):  # the policy's own sampler, and its best exact one
    sampler, seeds = policy.sampler(name), range(CHUNKS + 1)
    drawn = [sampler(frames, torch.Generator().manual_seed(seed)) for seed in seeds][1:]  # the first one warms up
    calls = statistics.mean(int(out.stats.calls) for out in drawn)
    milliseconds = 1e3 * statistics.median(out.stats.seconds for out in drawn)
    found = "its chain adds no noise: nothing to speculate on"
    if (policy.chain.sigma > 0).any():
        # If the sampler is exact, the noise that each step has added to its mean is standard normal.
        paths = [sampler(frames, torch.Generator().manual_seed(seed), return_states=True).states for seed in seeds]
        p = same_as_normal(torch.cat([implied_noises(policy, policy.chain, frames, path) for path in paths]))
        found = f"{'its own' if p > 1e-3 else 'another'} distribution (p = {p:.2g})"
    print(f"{name:10}{calls:6.1f} calls {milliseconds:8.1f} ms   {found}")

actions = policy.executable(drawn[-1].actions)[0]  # in the robot's units: the part of a chunk that its project executes
print(f"{len(actions)} actions to execute, the first of them {[round(value, 4) for value in actions[0].tolist()]}")
