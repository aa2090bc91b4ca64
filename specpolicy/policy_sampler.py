"""A sampler bound to a policy: from observations to chunks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from specpolicy.committed import Committed
from specpolicy.observations import Observation
from specpolicy.samplers import Sample
from specpolicy.samplers.base import Generators

if TYPE_CHECKING:
    from specpolicy.policy_base import Policy


class Bound(Protocol):
    """A sampler that is bound to a policy: `BoundSampler`, or `BoundDecoder` of a token policy."""

    @property
    def sampler(self) -> Any:
        """Its options."""
        ...

    def describe(self) -> dict[str, str | None]:
        """Return `distribution`, what it draws from, and `window`, its drafts in words (None without drafts)."""
        ...

    def __call__(self, batch: int, cond: Tensor, generator: Generators, return_states: bool) -> Sample:
        """Draw a batch of chunks for encoded observations, in the policy's own terms."""
        ...


class PolicySampler:
    """One sampler of one policy, bound: from observations to chunks.

    Attributes:
        policy: draws its chunks.
        options: the sampler, as a value.
        name: of the sampler.
        engine: of the network, by its name.
    """

    def __init__(self, policy: "Policy", bound: Bound):
        self.policy, self._bound, self.options, self.name = policy, bound, bound.sampler, bound.sampler.name
        self.engine = policy.engine_name

    def __repr__(self) -> str:
        return f"PolicySampler({self.options}, engine={self.engine})"

    def __call__(
        self,
        observation: Observation,
        generator: Generators = None,
        return_states: bool = False,
        committed: Committed | Sequence[Committed | None] | None = None,
    ) -> Sample:
        """See `Policy.predict`."""
        return self.policy.draw(self._bound, observation, generator, return_states, committed)
