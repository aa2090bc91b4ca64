"""The protocol of scripted experts."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Observation = dict[str, np.ndarray]


class Expert(Protocol):
    """A scripted policy that solves its task from observations alone.

    It sees the observations of a learnt policy and keeps its own memory. So it can be given an old observation, to
    measure the cost of waiting.
    """

    def reset(self, seed: int) -> None:
        """Forget the episode and start a new random stream (for choices between equally good ways)."""

    def act(self, observation: Observation) -> np.ndarray:
        """Return the clean, noise-free action (action_dim,) in the environment's units."""
