"""Chunks and planners: the control loop's view of a policy."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from specpolicy.committed import Committed, takes_committed
from specpolicy.images import drawn_on_demand

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
        encode_seconds: the part of `seconds` spent in encoding the observation.
    """

    actions: np.ndarray
    seconds: float = 0.0
    network_seconds: float = 0.0
    calls: int = 0
    rows: int = 0
    encode_seconds: float = 0.0


def history_of(frames: Sequence[Mapping[str, Any]], pictures: Collection[str] | None = None) -> History:
    """Frames of an episode, oldest first, as the history that a planner is given.

    Args:
        pictures: keys of the pictures that are looked at, of those drawn on demand; the others are left out. None: all.
    """
    keys = [
        key for key, value in frames[-1].items() if pictures is None or key in pictures or not drawn_on_demand(value)
    ]
    return {key: np.stack([frame[key] for frame in frames]) for key in keys}


class Planner(Protocol):
    """Plans a chunk of actions from the newest observations. Keeps no state from one episode to the next.

    A planner that does not look at all pictures of a simulated world says so by an attribute `pictures`, the keys of
    those that it does look at: the others are not drawn for it.

    One that continues the actions which are executed meanwhile has an argument `committed` in `plan`; an attribute
    `continues` says otherwise. A method `check_way(way)`, if it has one, raises before the robot moves for a way (see
    `Committed`) in which it continues none.
    """

    n_obs_steps: int
    n_action_steps: int  # actions of a chunk to execute before the next request

    def reset(self, seed: int) -> None:
        """Begin an episode; `seed` determines all of its random numbers."""

    def plan(self, history: History) -> Chunk:
        """Return the chunk for a history of `n_obs_steps` frames.

        With an argument `committed`, a `Committed` or None: given that its actions are executed in any case.
        """
        ...


def continues(planner: Any) -> bool:
    """Whether a planner draws chunks given committed actions."""
    told = getattr(planner, "continues", None)
    return takes_committed(getattr(planner, "plan", None)) if told is None else bool(told)


def planned(planner: Any, history: History, committed: Committed | None) -> Any:
    """Return the planner's chunk. Where nothing is committed it is not told of it, so it need not know the argument."""
    return planner.plan(history) if committed is None else planner.plan(history, committed=committed)
