"""A sampler bound to a policy: from observations to chunks."""

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from specpolicy.committed import Committed
from specpolicy.policy.drawing import draw
from specpolicy.policy.observations import Observation
from specpolicy.samplers import Sample
from specpolicy.samplers.base import Generators

if TYPE_CHECKING:
    from specpolicy.policy.base import Policy


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


class BoundSamplers:
    """Samplers that were used, with what they were bound to."""

    most = 16  # the oldest one is dropped

    def __init__(self) -> None:
        self._known: list[tuple[Any, tuple[Any, ...], Bound]] = []

    def get(self, name: Any, parts: tuple[Any, ...], bind: Callable[[], Bound]) -> Bound:
        """Return the sampler that was bound for an equal name and to the very same parts, or bind it now."""
        for known, own, bound in self._known:
            if known == name and all(map(operator.is_, own, parts)):
                return bound
        bound = bind()
        self._known = [*self._known[1 - self.most :], (name, parts, bound)]
        return bound


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
        return draw(self.policy, self._bound, observation, generator, return_states, committed)
