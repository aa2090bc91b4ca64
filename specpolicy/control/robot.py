"""The robot protocol of the control loop."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from specpolicy.errors import SpecpolicyError

Observation = Mapping[str, np.ndarray]


class Robot(Protocol):
    """A robot: three methods, each much shorter than a control period.

    The loop calls them from a thread of its own. Another thread calls `stop` only if a call hangs. If the program is
    killed none is called at all, so the driver should stop a robot that got no command for a few control periods.

    A fourth method, `position()`, may return where the robot stands, as an action (D,): the one that keeps it as it is.
    That is the measured pose where actions are target poses, and zeros where they are velocities or changes of pose.
    `Limits.rate` counts the first action from there. None means "not known".

    A robot that clips its actions may say so by an attribute `bounds`, the lowest and the highest action: a policy that
    continues committed actions is then told of them as they are executed.
    """

    def observe(self) -> Observation:
        """Return the newest observation, under the policy's keys. An exception means that it is lost."""
        ...

    def act(self, action: np.ndarray) -> None:
        """Execute an action (D,) in the policy's units, and keep it until the next one comes."""

    def stop(self) -> None:
        """Come to rest safely, and only then print or log. Called at the end of a run, whatever ended it.

        Usually called once. Where a call hangs, another thread calls `stop`. If an `act` returns after that, `stop` is
        called again, because the late action may have reached the robot. So it must be safe to call twice.
        """


def standing(robot: Robot, start: Any = None) -> np.ndarray | None:
    """Return where the robot stands, as an action: `start`, else its `position()`; None without either.

    Returns:
        (D,) or (), float64.

    Raises:
        SpecpolicyError: it is not a number or list of numbers, or not finite.
    """
    told = "start"
    if start is None:
        position = getattr(robot, "position", None)
        start, told = position() if callable(position) else None, "robot.position()"
    if start is None:
        return None
    try:
        array = np.array(start, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.ndim > 1 or not np.isfinite(array).all():
        raise SpecpolicyError(f"{told} is {start}: expected a finite number per action dimension")
    return array
