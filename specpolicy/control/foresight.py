"""What will be executed before the chunk that is asked for now can be used."""

import numpy as np

from specpolicy.committed import Committed
from specpolicy.control.execution import Execution
from specpolicy.control.limits import Limits
from specpolicy.control.queue import ChunkQueue

Bounds = tuple[np.ndarray, np.ndarray]  # (D,) each, lowest and highest action that a robot executes


class Foresight:
    """Tells a planner of the actions that it can no longer change.

    Actions are those that a robot executes as far as that is known: within the limits, and within its bounds.

    Args:
        execution: how chunks become actions.
        limits: of the actions; None for none.
        bounds: between which the robot clips what it is given; None if unknown.
        period: seconds of a control step.
        holds: whether the robot holds its last action while it is given none (a simulated world does).
    """

    def __init__(self, execution: Execution, limits: Limits | None, bounds: Bounds | None, period: float, holds: bool):
        self._execution, self._limits, self._bounds, self._period = execution, limits, bounds, period
        self._holds = execution.on_miss in ("continue_chunk", "hold_last") or (holds and execution.on_miss == "block")

    def committed(self, queue: ChunkQueue, step: int, lead: int, last: np.ndarray | None) -> Committed | None:
        """Return what is decided at `step`, before its action is executed; None if nothing is.

        Args:
            queue: the planned actions, without the chunk to ask for.
            step: the control step of the newest observation.
            lead: control steps until that chunk is due.
            last: (D,) the action before `step`, if there was one.
        """
        if not lead or not self._execution.continues:
            return None
        known: list[np.ndarray] = []
        for wanted in queue.upcoming(step):
            last = self.sent(wanted, last)
            known.append(last)
        while last is not None and self._holds and len(known) < lead:
            last = self.sent(self._execution.held(last), last)
            known.append(last)
        if not known:
            return None
        actions = np.stack(known) if self._bounds is None else np.clip(np.stack(known), *self._bounds)
        return Committed(actions, min(lead, len(known)), self._execution.stitching)

    def sent(self, wanted: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        """Return the action (D,) that is sent where `wanted` is planned and `last` was sent before it."""
        return wanted if self._limits is None else self._limits.apply(wanted, last, self._period)
