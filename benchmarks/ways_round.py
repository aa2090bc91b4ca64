"""Which way round the T: the shares of the two ways that policies and the expert take from the same Push-T scene.

    python benchmarks/ways_round.py --policies checkpoints/push_t outputs/mip --output outputs/ways.json

Each scene is begun many times. The pusher's angle about the T is followed until it first moves the T; beyond 60 degrees
that is a way round, clockwise or counter-clockwise. A scene counts if the expert goes round in at least half of its
trials. Of a sampler that keeps the distribution the shares are those of `ddpm`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import specpolicy_envs
from specpolicy import load_policy
from specpolicy.files import write_text

TASK = "specpolicy/PushT-v0"
STEPS, MOVED, ROUND = 60, 0.003, np.deg2rad(60)  # control steps at most; metres of the T; angle of a way round
Actor = Callable[[list[dict[str, np.ndarray]]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=Path, nargs="+", required=True)
    parser.add_argument("--samplers", nargs="+", default=["ddpm", "ddim-10"], help="of policies that know them")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--trials", type=int, default=24, help="of each scene")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first scene")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    seeds = range(arguments.seed, arguments.seed + arguments.scenes)
    envs = [gymnasium.make(TASK, disable_env_checker=True) for _ in range(arguments.trials)]
    expert = np.array([ways(envs, seed, expert_actor(len(envs), seed)) for seed in seeds])
    scenes = (expert != 0).mean(axis=1) >= 0.5
    found: dict[str, Any] = {"scenes": int(scenes.sum()), "trials": len(envs), "expert": shares(expert[scenes])}
    for path in arguments.policies:
        policy = load_policy(path)
        regression = policy.config.mip is not None
        for name in ["ddpm"] if regression else arguments.samplers:
            taken = [ways(envs, seed, policy_actor(policy, name, len(envs), seed)) for seed in np.array(seeds)[scenes]]
            label = "MIP" if regression else f"{path.name}, {name}"
            found[label] = shares(np.array(taken))
            print(label, found[label], flush=True)
    write_text(arguments.output, json.dumps(found, indent=1) + "\n")


def ways(envs: list[gymnasium.Env], seed: int, act: Actor) -> np.ndarray:
    """Return +1 (counter-clockwise), -1 or 0 (straight) for each trial of a scene."""
    observations = [env.reset(seed=int(seed))[0] for env in envs]
    start = observations[0]["block_pose"][:2]
    angle, before = np.zeros(len(envs)), np.array([bearing(one) for one in observations])
    free = np.ones(len(envs), dtype=bool)
    for _ in range(STEPS):
        actions = act(observations)
        for index in np.flatnonzero(free):
            observations[index] = envs[index].step(actions[index])[0]
        now = np.array([bearing(one) for one in observations])
        moved = np.array([np.linalg.norm(one["block_pose"][:2] - start) > MOVED for one in observations])
        free &= ~moved
        angle[free] += ((now - before + np.pi) % (2 * np.pi) - np.pi)[free]
        before = now
        if not free.any():
            break
    return np.where(np.abs(angle) > ROUND, np.sign(angle), 0).astype(int)


def bearing(observation: dict[str, np.ndarray]) -> float:
    """The pusher's angle as seen from the T, whose centre of mass is its last key point."""
    x, y = observation["agent_pos"] - observation["keypoints"][-2:]
    return float(np.arctan2(y, x))


def expert_actor(count: int, seed: int) -> Actor:
    """Return experts whose random choices differ."""
    experts = [specpolicy_envs.make_expert(TASK, seed=1_000 * seed + index) for index in range(count)]
    return lambda observations: np.array([one.act(seen) for one, seen in zip(experts, observations, strict=True)])


def policy_actor(policy: Any, sampler: str, count: int, seed: int) -> Actor:
    """Return a policy that draws the chunks of all trials together, each with random numbers of its own."""
    generators = [torch.Generator().manual_seed(1_000 * int(seed) + index) for index in range(count)]
    seen: list[list[dict[str, np.ndarray]]] = []
    plan: list[np.ndarray] = []

    def act(observations: list[dict[str, np.ndarray]]) -> np.ndarray:
        seen.append(list(observations))
        if not plan:
            frames = [seen[max(0, len(seen) - policy.n_obs_steps + index)] for index in range(policy.n_obs_steps)]
            history = {
                key: np.stack([[one[key] for one in frame] for frame in frames], axis=1)
                for key in policy.observation_keys
            }
            chunk = policy.executable(policy.predict(history, sampler=sampler, generator=generators).actions)
            plan.extend(chunk.transpose(0, 1).numpy())
        return plan.pop(0)

    return act


def shares(taken: np.ndarray) -> dict[str, float]:
    """Return shares over all scenes and trials (S, N) of -1, 0, 1, and means over scenes.

    `rarer`: the share of the rarer way round among those that went round, 0.5 at most. `entropy`: of the two, in bits.
    """
    rarer, entropy = [], []
    for scene in taken:
        went = scene[scene != 0]
        if len(went):
            share = float(np.mean(went > 0))
            rarer.append(min(share, 1 - share))
            entropy.append(float(-sum(p * np.log2(p) for p in (share, 1 - share) if p > 0)))
    return {
        "clockwise": float(np.mean(taken < 0)),
        "straight": float(np.mean(taken == 0)),
        "counter_clockwise": float(np.mean(taken > 0)),
        "rarer": float(np.mean(rarer)) if rarer else 0.0,
        "entropy": float(np.mean(entropy)) if entropy else 0.0,
    }


if __name__ == "__main__":
    main()
