"""A conditioned chain as another denoiser: it takes what is committed with the condition."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from specpolicy.conditioning.given import Given, Packing
from specpolicy.conditioning.ways import Predict, Way
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.engines.base import Denoiser


class Continuation:
    """Wraps everything that predicts x0 in one way of continuing committed actions: the network, and its drafters.

    Exactness needs it of the network alone. A drafter that is not told makes worse drafts.

    Args:
        way: see `Way`.
        packing: of the conditions.
    """

    def __init__(self, way: Way, packing: Packing):
        self.way, self.packing, self._of_guesses = way, packing, way.of_guesses
        process = way.process
        self._to_x0 = torch.stack(process.x0_coefficients(torch.arange(process.steps)))
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def x0(self, predict: Predict, state: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """Return x0' (..., d) of a drafter's guess, untouched where nothing is committed. See `Way.__call__`."""
        x0, way = predict(state), self._of_guesses
        return torch.where(way.touched(given), way(x0, predict, state, timestep, given), x0)

    def denoiser(self, denoiser: Denoiser) -> Denoiser:
        """Return a denoiser of packed conditions whose output predicts x0'.

        Where nothing is committed its output is that of `denoiser`, bit for bit.
        """

        def continued(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            assert cond is not None
            seen, given = self.packing.split(cond)
            state = x.flatten(1)
            from_state, from_output = self._coefficients(x)[:, t, None]

            def read(states: Tensor) -> Tensor:
                return denoiser(states.view_as(x), t, seen).flatten(1)

            def predict(states: Tensor) -> Tensor:
                return from_state * states + from_output * read(states)

            with torch.enable_grad() if self.way.differentiates else nullcontext():
                state = state.requires_grad_() if self.way.differentiates else state
                output = read(state)
                x0 = from_state * state + from_output * output
            x0 = self.way(x0, predict, state, t, given)
            told = (x0 - from_state * state) / from_output
            return torch.where(self.way.touched(given), told, output).view_as(x)

        def apart(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            """As above, where gradients can be taken: samplers draw in inference mode, whose tensors have none."""
            assert cond is not None
            with torch.inference_mode(False), torch.no_grad():
                return continued(x.clone(), t.clone(), cond.clone())

        return apart if self.way.differentiates else continued

    def head(self, head: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a correction head of packed conditions, which leaves committed values where they are."""

        def continued(root: Tensor, x0: Tensor, start: Tensor, timesteps: Tensor, packed: Tensor) -> Tensor:
            cond, given = self.packing.split(packed)
            change = head(root, x0, start, timesteps, cond)
            return change * (1 - given.spread().weights.unflatten(-1, root.shape[1:]))

        return continued

    def _coefficients(self, like: Tensor) -> Tensor:
        key = like.device, like.dtype
        if key not in self._placed:
            with torch.inference_mode(False):
                self._placed[key] = self._to_x0.to(*key)
        return self._placed[key]


def check_whole(timesteps: Tensor) -> None:
    """Raise unless the timesteps of a chain are whole numbers, by which levels of noise are looked up."""
    if timesteps.is_floating_point():
        raise SpecpolicyError("a chain with timesteps between whole numbers takes no committed actions")
