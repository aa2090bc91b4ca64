"""The time of a network that nobody has trained, with the calls of one that somebody has.

How long a call takes does not depend on the weights. How many calls a sampler makes does, so they come from a trained
policy: it answers every call, and the other network is called with as many rows beside it and timed in its place.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specpolicy.engines.base import Denoiser, Engine, Workload
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model, network_of
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy_base import Policy


class StandIn(Engine):
    """A denoiser that returns what `answers` returns and makes the same call of `timed`.

    To samplers it is the engine whose time counts, with the network that answers. `read_surplus` says how long the
    answers took: whoever measures a time takes that off.
    """

    def __init__(self, answers: Denoiser, timed: Denoiser, device: torch.device):
        super().__init__(Workload(network_of(answers) or answers, (), None, max_rows=1))
        self.name = timed.name if isinstance(timed, Engine) else "eager"
        self._timed, self._device, self._answers = timed, device, Model(answers, device)

    @property
    def device(self) -> torch.device:
        """Where both networks are."""
        return self._device

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call both networks. A device works one call off after the other, so each has its own time there, too."""
        self._timed(x, t, cond)
        return self._answers(x, t, cond)

    def read_surplus(self) -> float:
        """Seconds that `answers` took since this was last asked."""
        surplus, self._answers = self._answers.seconds, self._answers.fresh()
        return surplus


def random_network(policy: Policy, options: Mapping[str, Any], seed: int = 0) -> DiffusionPolicy:
    """A policy like `policy`, on its device, whose network has other options and random weights.

    Raises:
        SpecpolicyError: an option that the network does not have, or another kind of network.
    """
    if policy.kind != "diffusion":
        raise SpecpolicyError("network: only the time of another diffusion policy's network can stand in")
    kind = policy.config.network.kind
    if options.get("kind", kind) != kind:
        raise SpecpolicyError(
            f"network: the policy has a {kind}, and its conditions fit no {options['kind']}; "
            "give other options of the same kind"
        )
    # Its random weights shall not disturb the random numbers of whoever called.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        other = DiffusionPolicy.from_config(policy.config.with_network(options))
    return other.to(policy.device).eval()
