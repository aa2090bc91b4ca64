"""Trained policies at fixed observations, for the exactness tests: lift, and all shipped ones that see images.

A policy is encoded once for its observations: thousands of chunks are then drawn from a condition.
"""

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from distribution_tests import ChainDistribution, Verdict, bonferroni, innovation_p, innovations
from exactness_cases import DRAFTERS, Composed, skewed

from specpolicy import GaussianChain, load_policy, make_sampler, sample
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.speculative.drafters import Independent
from specpolicy.samplers.speculative.verifiers import Block, Reflection, Residual

HERE = Path(__file__).parent
CHECKPOINTS = HERE.parents[2] / "checkpoints"
STEPS, OBSERVATIONS = 16, 4


def shipped_that_see() -> list[str]:
    """Names of the shipped policies that see images, observations beside them."""
    configs = sorted(CHECKPOINTS.glob("*/config.json"))
    seeing = [path.parent for path in configs if json.loads(path.read_text(encoding="utf-8")).get("vision")]
    return [path.name for path in seeing if (path / FILE).exists()]


SEEING = shipped_that_see()
POLICIES = ["lift", *SEEING]


def blind(name):
    """An independent drafter: a policy's network that sees nothing of its observation."""
    return lambda chain, shape: Independent(lambda x, t, cond: subject(name)[0].denoiser(x, t, torch.zeros_like(cond)))


def samplers(name):
    """Exact samplers by name; "recycled" takes the policy's calibration."""
    return {
        **{one: make_sampler(one, window=None) for one in ("asd", "residual", "block")},
        "recycled": make_sampler("recycled"),
        "asd, window 4": make_sampler("asd", window=4),
        "block, window 4": make_sampler("block", window=4),
        "recycled, window 4": make_sampler("recycled", window=4),
        "recycled, residual": Composed(DRAFTERS["recycled"], Residual()),
        "corrected, window 8": Composed(DRAFTERS["corrected"], Reflection(), 8),
        "independent, block, window 4": Composed(blind(name), Block(), 4),
        "block, skewed": Composed(skewed, Block()),
    }


@cache
def subject(name):
    """(policy, conditions (4, ...)) of observations of a policy that were not used to train it."""
    policy = load_policy(CHECKPOINTS / name)
    if name == "lift":
        recorded = json.loads((HERE / "lift_observations.json").read_text())
        observations = [entry["observation"] for entry in recorded]
        histories = {key: np.array([one[key] for one in observations]) for key in observations[0]}
    else:
        histories = read_histories(CHECKPOINTS / name / FILE, policy)
    count = len(next(iter(histories.values())))
    chosen = np.arange(OBSERVATIONS) * count // OBSERVATIONS  # of episodes of their own, as far as there are so many
    with torch.no_grad():
        return policy, policy.encode({key: torch.as_tensor(values[chosen]) for key, values in histories.items()})


def calibrated(sampler, name):
    """The sampler with what was calibrated for the policy, if it takes that: denoisers alone bring none."""
    takes = isinstance(sampler, Recycled)
    return dataclasses.replace(sampler, calibration=subject(name)[0].calibration) if takes else sampler


def slow_movements(chunk):
    """The mean of a chunk (H, D) over time and its first cosine: (2 D,). Chunks of actions are smooth."""
    time = (torch.arange(chunk.shape[0]) + 0.5) / chunk.shape[0]
    return torch.cat([chunk.mean(0), (torch.cos(torch.pi * time)[:, None] * chunk).mean(0)])


def noise_p(name, sampler, n, seed):
    """(p-value, statistics) of the test whether the noises that n chains of `sampler` imply, each at one of the
    observations in turn, are independent standard normals; the network's own evaluations are all it needs."""
    policy, conds = subject(name)
    cond = conds[torch.arange(n) % len(conds)]
    generator = torch.Generator().manual_seed(seed)
    shape = (n, *policy.sample_shape)
    out = sample(policy.denoiser, chain(name), shape, cond, calibrated(sampler, name), generator, return_states=True)
    return innovation_p(*innovations(policy.denoiser, chain(name), out.states, cond)), out.stats


@dataclass(frozen=True)
class AtObservation:
    """A policy's denoiser at one of its observations, for any number of rows."""

    name: str
    index: int

    def __call__(self, x, t, cond=None):
        """The network's output."""
        policy, conds = subject(self.name)
        return policy.denoiser(x, t, conds[self.index].expand(len(x), *conds.shape[1:]))


def chain(name: str) -> GaussianChain:
    """The chain of the tests: the policy's own, strided."""
    return subject(name)[0].chain.strided(STEPS)


def draw(name, sampler, observation, n, seed, batch=500):
    """States (K+1, n, H, D) of `sampler` at one observation, in batches, and its mean calls."""
    policy, conds = subject(name)
    parts = [
        sample(
            AtObservation(name, observation),
            chain(name),
            (min(batch, n - start), *policy.sample_shape),
            conds[observation][None],  # which the calibration reads
            calibrated(sampler, name),
            generator=torch.Generator().manual_seed(1_000_003 * seed + start),
            return_states=True,
        )
        for start in range(0, n, batch)
    ]
    calls = torch.cat([part.stats.calls for part in parts]).double().mean()
    return torch.cat([part.states for part in parts], dim=1), float(calls)


@cache
def distribution_at(name: str, observation: int, n: int) -> ChainDistribution:
    """The tests against n chunks of the sequential sampler at one observation."""
    states, _ = draw(name, "ddpm", observation, n, seed=1)
    return ChainDistribution(AtObservation(name, observation), chain(name), states, places=3, features=slow_movements)


def judge(name, sampler, n, observations, seed) -> tuple[Verdict, float]:
    """The verdict over all `observations`, n chunks each, and the mean calls."""
    verdicts, calls = [], 0.0
    for observation in observations:
        states, mean_calls = draw(name, sampler, observation, n, seed)
        verdicts.append(distribution_at(name, observation, 2 * n)(states))
        calls += mean_calls / len(observations)
    groups = {group: bonferroni([one.groups[group] for one in verdicts]) for group in verdicts[0].groups}
    return Verdict(groups, max(one.distance for one in verdicts)), calls
