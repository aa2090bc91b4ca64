"""Execution: when to replan, how to join chunks, what to do when one is late."""

from dataclasses import dataclass

import numpy as np

from specpolicy.committed import WAYS, check_way, is_way
from specpolicy.errors import SpecpolicyError

ON_MISS = ("continue_chunk", "hold_last", "block", "stop")
STITCHING = ("continue_chunk", "naive_switch", "sync_pause", "temporal_ensembling", *WAYS)


class DeadlineMissed(SpecpolicyError):
    """A chunk was late and the miss policy is `stop`."""


@dataclass(frozen=True)
class Execution:
    """How chunks become actions.

    A chunk is requested every `execute_steps` control steps, and is due `lead` steps after its newest observation.
    The previous chunk is executed until the new one is there: one that comes early is used on arrival. If it is late,
    or if no chunk has an action for a control step, `on_miss` decides:

    | on_miss | meanwhile |
    |---|---|
    | `continue_chunk` | execute the rest of the previous chunk, then hold the last action |
    | `hold_last` | hold the last action |
    | `block` | give the robot no action until the chunk arrives (a simulated world holds the last action) |
    | `stop` | raise `DeadlineMissed`: the robot is stopped |

    | stitching | while inference runs | the new chunk |
    |---|---|---|
    | `continue_chunk` | the previous chunk goes on | its actions keep their control steps, past ones are dropped |
    | `temporal_ensembling` | the same | the same, and all chunks with an action for a step are blended |
    | `naive_switch` | the previous chunk goes on | begins with its first action on arrival, however old |
    | `sync_pause` | the last action is held | begins with its first action on arrival |
    | one of `WAYS` | the previous chunk goes on | as with `continue_chunk`, drawn given what is executed until then |

    Attributes:
        execute_steps: None for the policy's own `n_action_steps`.
        lead: None for the control steps that inference takes when the loop begins: zero in the paused clock.
            `sync_pause` has none.
        on_miss: see above. Pauses of `sync_pause` are not misses.
        stitching: see above.
        ensemble_decay: a chunk's weight is exp(-ensemble_decay * i), i = 0 for the oldest.
        hold: an action (D,) to hold in place of the last one; None entries are taken from the last one. For actions
            that are changes of position or velocities, holding means zeros, not the last action again.
        in_flight: chunks that are computed side by side, so that one may be requested before the last one is there. In
            simulated worlds alone: a worker computes one at a time. Chunks that are drawn given what is executed then
            wait until they are due, because the others in flight were told what is executed until then.
    """

    execute_steps: int | None = None
    lead: int | None = None
    on_miss: str = "continue_chunk"
    stitching: str = "continue_chunk"
    ensemble_decay: float = 0.01
    hold: tuple[float | None, ...] | None = None
    in_flight: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (("on_miss", self.on_miss, ON_MISS), ("stitching", self.stitching, STITCHING)):
            if value not in known and not (name == "stitching" and is_way(value)):
                raise SpecpolicyError(f"unknown {name} '{value}': use one of {', '.join(known)}")
        if self.continues:
            check_way(self.stitching)
        if self.execute_steps is not None and self.execute_steps < 1:
            raise SpecpolicyError(f"execute_steps={self.execute_steps}: expected at least one control step")
        if self.lead is not None and self.lead < 0:
            raise SpecpolicyError(f"lead={self.lead}: expected 0 or more control steps")
        if isinstance(self.in_flight, bool) or self.in_flight != int(self.in_flight) or self.in_flight < 1:
            raise SpecpolicyError(f"in_flight={self.in_flight}: expected a whole number of chunks, 1 or more")
        if self.in_flight > 1 and self.readdresses:
            raise SpecpolicyError(f"in_flight={self.in_flight}: stitching={self.stitching} waits for every chunk")
        if self.ensemble_decay < 0:
            raise SpecpolicyError(f"ensemble_decay={self.ensemble_decay}: expected 0 or more")
        if self.hold is not None and not all(map(_finite_or_none, self.hold)):
            raise SpecpolicyError(f"hold={list(self.hold)}: expected finite numbers, or null to keep an entry")

    def check(self, continues: bool, simulated: bool) -> None:
        """Raise unless chunks can be computed so.

        Args:
            continues: whether the planner takes committed actions.
            simulated: whether the clock is that of a simulated world.
        """
        if self.continues and not continues:
            raise SpecpolicyError(
                f"stitching={self.stitching}: this policy takes no committed actions: use continue_chunk"
            )
        if self.in_flight > 1 and not simulated:
            raise SpecpolicyError(
                f"in_flight={self.in_flight}: a worker computes one chunk at a time; use 1, or a simulated clock"
            )

    @property
    def continues(self) -> bool:
        """Whether a chunk is drawn given the actions that are executed before it can be used."""
        return is_way(self.stitching)

    @property
    def pauses(self) -> bool:
        """Whether the robot waits for every chunk."""
        return self.stitching == "sync_pause"

    @property
    def readdresses(self) -> bool:
        """Whether a chunk begins with its first action whenever it arrives."""
        return self.stitching in ("sync_pause", "naive_switch")

    def held(self, last: np.ndarray) -> np.ndarray:
        """Return the action (D,) that holds the robot after the action `last`."""
        if self.hold is None:
            return last
        return np.array([kept if value is None else value for value, kept in zip(self.hold, last, strict=True)])


def _finite_or_none(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))
