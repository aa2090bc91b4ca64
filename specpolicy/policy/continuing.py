"""Samplers of conditioned chains, for policies: from committed actions to what samplers are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from specpolicy.committed import Committed
from specpolicy.conditioning import Continuation, Given, Packing, make_way
from specpolicy.samplers import BoundSampler, Sample
from specpolicy.samplers.base import Generators

MOST = 16  # samplers kept; the oldest one is dropped


@dataclass
class Continuing:
    """Draws chunks that continue committed actions, for one policy.

    Attributes:
        shape: (H, D) of a sampler's draw.
        first: the entry of the newest frame's action, the first one that can be committed.
        action_dim: numbers of an entry that are an action, as the network sees it.
    """

    shape: tuple[int, int]
    first: int
    action_dim: int
    _made: list[tuple[BoundSampler, str, BoundSampler]] = field(default_factory=list)

    def __getstate__(self) -> dict[str, object]:
        """Drop the samplers: a copy, also in another process, makes its own."""
        return {**vars(self), "_made": []}

    def draw(
        self,
        bound: BoundSampler,
        cond: Tensor,
        committed: Sequence[Committed | None],
        normalise: Callable[[Tensor], Tensor],
        generator: Generators,
        return_states: bool,
    ) -> Sample:
        """Return the chunks of the chain that is conditioned on what is committed for each row.

        Args:
            bound: the sampler of the policy's own chain.
            cond: (B, ...) encoded observations.
            committed: of each row; one at least is not None, and all are of one way.
            normalise: from actions (n, D) in the environment's units to those of the network (n, action_dim).
            generator, return_states: see `BoundSampler`.

        Raises:
            SpecpolicyError: a way that this policy cannot continue in.
        """
        continued = self.sampler(bound, next(one.way for one in committed if one is not None), cond)
        continuation = continued.setting.continuation
        assert continuation is not None
        given = self.given(committed, continuation, normalise, cond.device)
        return continued(len(cond), continuation.packing.pack(cond, given), generator, return_states)

    def sampler(self, bound: BoundSampler, way: str, cond: Tensor) -> BoundSampler:
        """Return the sampler of the conditioned chain, made once."""
        for known, name, continued in self._made:
            if known is bound and name == way:
                return continued
        setting = bound.setting
        prior = None if setting.calibration is None else setting.calibration.prior
        spread = None if prior is None else (prior.basis, prior.variances)
        made = make_way(way, setting.chain.process, self.shape, self.first, self.action_dim, spread)
        packing = Packing(tuple(cond.shape[1:]), self.shape[0] * self.shape[1])
        continued = BoundSampler(bound.sampler, setting.continuing(Continuation(made, packing)))
        self._made = [*self._made[-MOST + 1 :], (bound, way, continued)]
        return continued

    def given(
        self,
        committed: Sequence[Committed | None],
        continuation: Continuation,
        normalise: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> Given:
        """Return committed actions as samplers see them, each in the entry of its control step; those beyond the chunk
        are left out."""
        values, weights = torch.zeros(2, len(committed), *self.shape, device=device)
        counts = torch.zeros(len(committed), 1, device=device)
        way = continuation.way
        for row, one in enumerate(committed):
            if one is not None:
                actions = torch.from_numpy(one.actions[: self.shape[0] - self.first]).float().to(device)
                known, count = slice(self.first, self.first + len(actions)), min(one.count, len(actions))
                values[row, known, : self.action_dim] = way.process.clipped(normalise(actions))
                weights[row, known, : self.action_dim] = way.weights(count, len(actions))[:, None].to(device)
                counts[row] = count
        return Given(values.flatten(1), weights.flatten(1), counts)
