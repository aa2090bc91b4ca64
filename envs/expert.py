"""What every scripted expert can do."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Observation = dict[str, np.ndarray]


class Expert(Protocol):
    """A scripted policy that solves its task from observations alone.

    It sees what a learnt policy would see and keeps its own memory, so it can be fed an old observation to
    find out what waiting costs.
    """

    def reset(self, seed: int) -> None:
        """Forget the episode and start a new random stream (for choices between equally good ways)."""

    def act(self, observation: Observation) -> np.ndarray:
        """The clean, noise-free action (action_dim,) in the environment's units."""
