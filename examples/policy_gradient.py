"""A step of policy gradient on a diffusion policy whose rollouts are drawn by an exact sampler, in few network calls.

python examples/policy_gradient.py [CHECKPOINT] [EPISODES] [CHUNKS] [EPOCHS]   # push_t, 8 episodes of 6 chunks

After DPPO (Ren et al. 2024, arXiv 2409.00588): every denoising step is an action with a Gaussian density. Its ratio to
the density under the policy that drew it is clipped as in PPO, and weighted by how much better the episode went on than
others did. The states are those of the sequential chain in distribution, whatever the sampler drafted on the way.
"""

import copy
import sys

import gymnasium
import numpy as np
import torch

import specpolicy
import specpolicy_envs  # noqa: F401  registers the tasks

FLOOR = 0.1  # of the deviations: the last steps, which have little noise, must not decide everything
CLIP, RATE = 0.01, 1e-5  # of the ratio of a step's densities; of learning


def rollouts(policy, sampler, episodes, chunks):
    """Play episodes; return of their chunks the states (K+1, B, H, D), the conditions (B, C), the rewards
    (episodes, chunks), and the mean of network calls."""
    env, generator = gymnasium.make("specpolicy/PushT-v0"), torch.Generator().manual_seed(0)
    states, conditions, calls, rewards = [], [], [], np.zeros((episodes, chunks))
    for episode in range(episodes):
        frame, _ = env.reset(seed=episode)
        frames, over = [frame] * policy.n_obs_steps, False
        for chunk in range(chunks):
            history = {key: np.stack([one[key] for one in frames]) for key in policy.observation_keys}
            drawn = sampler(history, generator, return_states=True)
            states.append(drawn.states)
            conditions.append(policy.encode(history))
            calls.append(drawn.stats.calls.item())
            for action in policy.executable(drawn.actions)[0].numpy():
                if not over:
                    frame, reward, terminated, truncated, _ = env.step(action)
                    frames, over = [*frames[1:], frame], terminated or truncated
                rewards[episode, chunk] += reward  # after its end an episode keeps its last reward
    return torch.cat(states, dim=1), torch.cat(conditions), rewards, np.mean(calls)


def advantages(rewards):
    """Return for each chunk (B,) the return from there on, compared with the other episodes at that time."""
    returns = rewards[:, ::-1].cumsum(axis=1)[:, ::-1]
    spread = returns - returns.mean(axis=0)
    return torch.tensor(spread / (spread.std() + 1e-8)).flatten()


def surrogate(ratio, weight):
    """Return PPO's clipped objective, which is to rise; ratio (K, B), weight (B,)."""
    return torch.minimum(ratio * weight, ratio.clamp(1 - CLIP, 1 + CLIP) * weight).mean()


def main(path="checkpoints/push_t", episodes=8, chunks=6, epochs=4):
    policy = specpolicy.load_policy(path)
    sampler = policy.sampler("recycled")
    with torch.no_grad():
        states, cond, rewards, calls = rollouts(policy, sampler, episodes, chunks)
    weight, chain = advantages(rewards), policy.chain
    noisy = chain.sigma > 0  # the others have no density
    network = copy.deepcopy(policy.denoiser)  # the sampler keeps the weights that it was calibrated for
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    with torch.no_grad():
        old = specpolicy.log_probs(network, chain, states, cond, FLOOR)[noisy]
    for epoch in range(epochs + 1):
        ratio = (specpolicy.log_probs(network, chain, states, cond, FLOOR)[noisy] - old).exp()
        found = surrogate(ratio, weight)
        if epoch == 0:
            first = found.item()
            told = f"{len(weight)} chunks of {len(chain)} steps in {calls:.1f} calls"
            print(f"return {rewards.sum(axis=1).mean():.3f}, {told}")
            print(f"ratio at the start {ratio.mean().item():.6f}, at most {(ratio - 1).abs().max().item():.1g} from 1")
        if epoch < epochs:
            optimiser.zero_grad()
            (-found).backward()
            size = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            print(f"epoch {epoch}: surrogate {found.item():+.6f}, gradient {size.item():.3g}")
    clipped = ((ratio - 1).abs() > CLIP).float().mean().item()
    print(f"gain of the surrogate {found.item() - first:+.6f}, {clipped:.1%} of the ratios clipped")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:5]))
