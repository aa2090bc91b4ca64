"""The shipped lift policy at fixed observations: a trained network for the exactness tests."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from exactness_cases import DRAFTERS, Composed, skewed
from law_tests import ChainLaw, Verdict, bonferroni, innovation_p, innovations

from specpolicy import GaussianChain, load_policy, make_sampler, sample
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.speculative.drafters import Independent
from specpolicy.samplers.speculative.verifiers import Block, Reflection, Residual

HERE = Path(__file__).parent
STEPS = 16


def blind(chain, shape):
    """An independent drafter: the policy's network that sees nothing of its observation."""
    return Independent(lambda x, t, cond: lift()[0].denoiser(x, t, torch.zeros_like(cond)))


SAMPLERS = {
    **{name: make_sampler(name, window=None) for name in ("asd", "residual", "block")},
    "recycled": make_sampler("recycled"),
    "asd, window 4": make_sampler("asd", window=4),
    "block, window 4": make_sampler("block", window=4),
    "recycled, window 4": make_sampler("recycled", window=4),
    "recycled, residual": Composed(DRAFTERS["recycled"], Residual()),
    "corrected, window 8": Composed(DRAFTERS["corrected"], Reflection(), 8),
    "independent, block, window 4": Composed(blind, Block(), 4),
    "block, skewed": Composed(skewed, Block()),
}


@cache
def lift():
    """(policy, conditions (4, C) of the recorded observations)."""
    policy = load_policy(HERE.parents[2] / "checkpoints" / "lift")
    recorded = json.loads((HERE / "lift_observations.json").read_text())
    observations = [entry["observation"] for entry in recorded]
    batch = {key: torch.tensor([one[key] for one in observations]) for key in observations[0]}
    return policy, policy.encode(batch)


def calibrated(sampler):
    """The sampler with what was calibrated for the lift policy, if it takes that: denoisers alone bring none."""
    takes = isinstance(sampler, Recycled)
    return dataclasses.replace(sampler, calibration=lift()[0].calibration) if takes else sampler


def slow_movements(chunk):
    """The mean of a chunk (H, D) over time and its first cosine: (2 D,). Chunks of actions are smooth."""
    time = (torch.arange(chunk.shape[0]) + 0.5) / chunk.shape[0]
    return torch.cat([chunk.mean(0), (torch.cos(torch.pi * time)[:, None] * chunk).mean(0)])


def noise_p(sampler, n, seed):
    """(p-value, statistics) of the test whether the noises that n chains of `sampler` imply, each at one of the
    observations in turn, are independent standard normals; the network's own evaluations are all it needs."""
    policy, conds = lift()
    cond = conds.repeat(-(-n // len(conds)), 1)[:n]
    generator = torch.Generator().manual_seed(seed)
    shape = (n, *policy.sample_shape)
    out = sample(policy.denoiser, chain(), shape, cond, calibrated(sampler), generator, return_states=True)
    return innovation_p(*innovations(policy.denoiser, chain(), out.states, cond)), out.stats


@dataclass(frozen=True)
class AtObservation:
    """The lift policy's denoiser at one of the recorded observations, for any number of rows."""

    index: int

    def __call__(self, x, t, cond=None):
        """The network's output."""
        policy, conds = lift()
        return policy.denoiser(x, t, conds[self.index].expand(len(x), -1))


def chain() -> GaussianChain:
    """The chain of the tests: the policy's own, strided."""
    return lift()[0].chain.strided(STEPS)


def draw(sampler, observation, n, seed, batch=500):
    """States (K+1, n, H, D) of `sampler` at one observation, in batches, and its mean calls."""
    policy, conds = lift()
    parts = [
        sample(
            AtObservation(observation),
            chain(),
            (min(batch, n - start), *policy.sample_shape),
            conds[observation][None],  # which the calibration reads
            calibrated(sampler),
            generator=torch.Generator().manual_seed(1_000_003 * seed + start),
            return_states=True,
        )
        for start in range(0, n, batch)
    ]
    calls = torch.cat([part.stats.calls for part in parts]).double().mean()
    return torch.cat([part.states for part in parts], dim=1), float(calls)


@cache
def law_at(observation: int, n: int) -> ChainLaw:
    """The tests against n chunks of the sequential sampler at one observation."""
    states, _ = draw("ddpm", observation, n, seed=1)
    return ChainLaw(AtObservation(observation), chain(), states, places=3, features=slow_movements)


def judge(sampler, n, observations, seed) -> tuple[Verdict, float]:
    """The verdict over all `observations`, n chunks each, and the mean calls."""
    verdicts, calls = [], 0.0
    for observation in observations:
        states, mean_calls = draw(sampler, observation, n, seed)
        verdicts.append(law_at(observation, 2 * n)(states))
        calls += mean_calls / len(observations)
    groups = {group: bonferroni([one.groups[group] for one in verdicts]) for group in verdicts[0].groups}
    return Verdict(groups), calls
