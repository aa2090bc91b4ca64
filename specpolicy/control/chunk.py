"""Chunks and planners: the control loop's view of a policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

History = Mapping[str, np.ndarray]  # {key: (n_obs_steps, ...)}, oldest frame first


@dataclass(frozen=True)
class Chunk:
    """Actions of consecutive control steps, and their cost.

    Attributes:
        actions: (T, D) in the environment's units; the first belongs to the step of the newest observation.
        seconds: wall time from the observation history to these actions.
        network_seconds: the part of it spent in the network.
        calls: sequential network calls.
        rows: states the network evaluated in them.
    """

    actions: np.ndarray
    seconds: float = 0.0
    network_seconds: float = 0.0
    calls: int = 0
    rows: int = 0


class Planner(Protocol):
    """Plans a chunk of actions from the newest observations. Keeps no state from one episode to the next."""

    n_obs_steps: int
    n_action_steps: int  # actions of a chunk to execute before the next request

    def reset(self, seed: int) -> None:
        """Begin an episode; `seed` determines all of its random numbers."""

    def plan(self, history: History) -> Chunk:
        """Return the chunk for a history of `n_obs_steps` frames."""
        ...
