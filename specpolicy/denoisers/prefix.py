"""Denoisers that have learnt to continue committed actions: training-time action conditioning.

Committed are the first actions of a chunk that are executed whatever the rest of it says. As in "Training-Time Action
Conditioning for Efficient Real-Time Chunking" (arXiv 2512.05964) the network sees them clean, where the others are
noisy, and is told which they are. There each action has a timestep of its own; here one more input channel marks them.

A sampler still calls (x, t, cond): the committed actions are a part of the condition, constant along a chain. So every
sampler that is exact for a denoiser is exact for this one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.committed import Committed
from specpolicy.conditioning import paint_in


@dataclass(frozen=True)
class Prefix:
    """Where committed actions stand in a chunk, and behind the observation in a condition.

    Attributes:
        first: entry of a chunk that is executed first.
        length: most committed actions.
        action_dim: numbers of an action.
        seen: shape of the condition before, without rows.
    """

    first: int
    length: int
    action_dim: int
    seen: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers that committed actions add to a condition: their values, and which of them there are."""
        return self.length * (self.action_dim + 1)

    def pack(self, cond: Tensor, actions: Tensor | None = None, count: Tensor | None = None) -> Tensor:
        """Return the condition (N, C) of observations together with committed actions.

        Args:
            cond: (N, *seen) the encoded observations.
            actions: (N, n, D) normalised, from entry `first` on; None: nothing is committed.
            count: (N,) how many of them are committed. More than `length`, or than n, are not told.
        """
        values, known = cond.new_zeros(len(cond), self.length, self.action_dim), cond.new_zeros(len(cond), self.length)
        if actions is not None and count is not None:
            there = min(self.length, actions.shape[1])
            known[:, :there] = torch.arange(there, device=cond.device) < count.to(cond.device)[:, None]
            values[:, :there] = torch.where(known[:, :there, None] > 0, actions[:, :there].to(cond), 0)
        return torch.cat([cond.flatten(1), values.flatten(1), known], dim=1)

    def tell(
        self, cond: Tensor, committed: Sequence[Committed | None], normalise: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return packed conditions (N, C) with what is committed for each row. Of more than `length` actions only the
        first are told; the rest of the chunk is planned as if the others were open."""
        count = torch.tensor([0 if one is None else min(one.count, self.length) for one in committed])
        actions = cond.new_zeros(len(cond), self.length, self.action_dim)
        for row, one in enumerate(committed):
            if one is not None:
                known = torch.as_tensor(one.actions[: int(count[row])], dtype=cond.dtype, device=cond.device)
                actions[row, : len(known)] = normalise(known)
        return self.pack(cond[:, : -self.size], actions, count)

    def some(self, cond: Tensor, chunks: Tensor, generator: torch.Generator) -> Tensor:
        """Return packed conditions (N, C) with random numbers of the actions of chunks (N, H, D) committed, as training
        draws them."""
        count = torch.randint(self.length + 1, (len(cond),), generator=generator)
        return self.pack(cond[:, : -self.size], chunks[:, self.first :], count)

    def unpack(self, cond: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `pack` has joined: the condition (N, *seen); values (N, H, D), zero where nothing is committed;
        and which entries (N, H, 1) are, as booleans."""
        seen, values, known = cond.split([cond.shape[1] - self.size, self.length * self.action_dim, self.length], dim=1)
        pad = (0, 0, self.first, horizon - self.first - self.length)
        mask = nn.functional.pad((known > 0.5).to(cond.dtype)[..., None], pad) > 0.5  # calibration blends conditions
        values = nn.functional.pad(values.unflatten(1, (self.length, self.action_dim)), pad)
        return seen.unflatten(1, self.seen), torch.where(mask, values, 0), mask


class Prefixed(nn.Module):
    """A denoiser whose condition ends with committed actions (see `Prefix`).

    The output at their entries is the one that predicts their values, so a chain keeps them.
    """

    to_x0: Tensor

    def __init__(self, network: nn.Module, prefix: Prefix, to_x0: Tensor):
        """`network`: takes chunks (N, H, D + 1), the last channel marks committed entries. `to_x0`: see
        `specpolicy.conditioning.x0_table`."""
        super().__init__()
        self.network, self.prefix = network, prefix
        self.register_buffer("to_x0", to_x0, persistent=False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (N, H, D), t (N,), cond (N, C)."""
        seen, values, known = self.prefix.unpack(cond, x.shape[1])

        def marked(x: Tensor, t: Tensor) -> Tensor:
            return self.network(torch.cat([x, known.to(x.dtype)], dim=2), t, seen)

        return paint_in(marked, x, t, values, known, self.to_x0)

    @property
    def costly_condition(self) -> bool:
        """See `DiffusionTransformer`."""
        return bool(getattr(self.network, "costly_condition", False))

    def split_denoiser(self, horizon: int, rows: int) -> "SplitPrefixed | None":
        """Return the same function in two parts, see there; None if the network cannot be split."""
        network: Any = self.network
        split = network.split_denoiser(horizon, rows)
        return None if split is None else SplitPrefixed(split, self.prefix, self.to_x0, horizon)


class SplitPrefixed(nn.Module):
    """Chunks (N, H, D) and features (N, F) -> (N, H, D). Features are the committed values (H, D) and marks (H), both
    known before the chain; -state / output and 1 / output of `x0_table`, by timestep; and those of the network."""

    weights: Tensor

    def __init__(self, split: Any, prefix: Prefix, to_x0: Tensor, horizon: int):
        super().__init__()
        self.split, self.prefix, self.horizon = split, prefix, horizon
        from_state, from_output = to_x0
        self.register_buffer("weights", torch.stack([-from_state / from_output, 1 / from_output], 1), persistent=False)

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F)."""
        inner = torch.cat([self.weights[timestep.long()], self.split.time_features(timestep)], dim=1)
        return nn.functional.pad(inner, (self.horizon * (self.prefix.action_dim + 1), 0))

    def condition_features(self, cond: Tensor | None) -> Tensor:
        """(M, C) -> (M, F)."""
        assert cond is not None, "a policy that continues actions has a condition"
        seen, values, known = self.prefix.unpack(cond, self.horizon)
        inner = nn.functional.pad(self.split.condition_features(seen), (2, 0))
        return torch.cat([values.flatten(1), known.flatten(1).to(cond.dtype), inner], dim=1)

    def forward(self, sample: Tensor, features: Tensor) -> Tensor:
        """See the class. Marks are 0 and 1, so products choose: an engine need not know `where`."""
        horizon, width = self.horizon, self.prefix.action_dim
        marks, weights = horizon * width, horizon * (width + 1)
        values = features[:, :marks].reshape(-1, horizon, width)
        known = features[:, marks:weights].reshape(-1, horizon, 1)
        state = features[:, weights : weights + 1].reshape(-1, 1, 1)
        value = features[:, weights + 1 : weights + 2].reshape(-1, 1, 1)
        free = known * -1.0 + 1.0
        output = self.split(torch.cat([sample * free + values, known], dim=2), features[:, weights + 2 :])
        return output * free + sample * known * state + values * value
