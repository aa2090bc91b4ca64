"""Times an untrained network with the calls of a trained one.

The time of a call does not depend on the weights. The number of a sampler's calls does, so a trained policy answers
every call. The other network is called with the same number of rows beside it and timed in its place.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specpolicy.engines.base import Denoiser, Engine, Workload
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model, network_of
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.base import Observation, Policy
from specpolicy.policy.drawing import draw
from specpolicy.samplers import BoundSampler, Sample, Sampler
from specpolicy.samplers.speculative.samplers import Speculation
from specpolicy.samplers.speculative.verifiers import Verdict, Verifier


class StandIn(Engine):
    """A denoiser that returns the output of `answers` and makes the same call of `timed`.

    To samplers it is the engine whose time counts, with the network that answers. `read_surplus` returns the time of
    the answers, which must be subtracted from any measured time.
    """

    def __init__(self, answers: Denoiser, timed: Denoiser, device: torch.device):
        super().__init__(Workload(network_of(answers) or answers, (), None, max_rows=1))
        self.name = timed.name if isinstance(timed, Engine) else "eager"
        self._timed, self._device, self._answers = timed, device, Model(answers, device)

    @property
    def device(self) -> torch.device:
        """Device of both networks."""
        return self._device

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call both networks. A device runs one call after the other, so each has its own time there, too."""
        self._timed(x, t, cond)
        return self._answers(x, t, cond)

    def read_surplus(self) -> float:
        """Return the seconds of `answers` since the last reading."""
        surplus, self._answers = self._answers.seconds, self._answers.fresh()
        return surplus


class Scripted(Verifier):
    """Replaces another verifier with the decisions of an earlier chunk, given in `script`."""

    def __init__(self, verifier: Verifier):
        self.name, self.keeps_noise = verifier.name, verifier.keeps_noise  # type: ignore[misc]
        self._verifier, self.script = verifier, iter([0])

    def decide(self, *numbers: np.ndarray) -> Verdict:
        """See `Verifier.decide`."""
        return Verdict(np.array([next(self.script)]), self._verifier.decide(*numbers).shift)


class Shadow:
    """A policy with other weights that repeats the rounds of chunks that another policy has drawn.

    So the whole chunk is timed as an engine captured it; `StandIn` would stand between the launches. A round of fixed
    shapes runs the same operations for all numbers, so only its verdicts have to be given.
    """

    def __init__(self, policy: DiffusionPolicy):
        self._policy = policy
        self._bound: dict[Sampler, tuple[BoundSampler, Scripted | None]] = {}

    def follow(self, sampler: Sampler, drawn: Sample, observation: Observation, generator: torch.Generator) -> Sample:
        """Draw a chunk by the rounds of `drawn`."""
        if sampler not in self._bound:
            self._bound[sampler] = self._bind(sampler)
        bound, verifier = self._bound[sampler]
        if verifier is not None:
            verifier.script = iter([int(accepted[0]) for accepted in drawn.stats.accepted])
        self._policy.forget_frames()
        return draw(self._policy, bound, observation, generator)

    def _bind(self, sampler: Sampler) -> tuple[BoundSampler, Scripted | None]:
        bound = BoundSampler(sampler, self._policy.setting())
        if not isinstance(bound.draw, Speculation):
            return bound, None
        if bound.draw.captured is None:
            raise SpecpolicyError(f"the time of another network cannot be taken for {sampler}: it is not captured")
        verifier = bound.draw.captured.verifier = Scripted(bound.draw.captured.verifier)
        return bound, verifier


def random_network(policy: Policy, options: Mapping[str, Any], seed: int = 0) -> DiffusionPolicy:
    """Return a policy like `policy`, on its device, whose network has other options or another `kind`, and random
    weights.

    Raises:
        SpecpolicyError: an option that the network does not have.
    """
    if policy.kind != "diffusion":
        raise SpecpolicyError("network: only the time of another diffusion policy's network can stand in")
    # Creating random weights must not disturb the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        other = DiffusionPolicy.from_config(policy.config.with_network(options))
    return other.to(policy.device).eval()
