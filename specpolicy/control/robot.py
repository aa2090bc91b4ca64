"""What the control loop knows of a robot."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from specpolicy.errors import SpecpolicyError

Observation = Mapping[str, np.ndarray]


class Robot(Protocol):
    """A robot: three methods, none of which should take longer than a small part of a control period.

    The loop calls them from one thread of its own. Only if a call does not come back is `stop` called from another.
    If the program is killed none is called at all: the driver should stop a robot that has been told nothing for a few
    control periods.

    A fourth method, `position()`, may say where the robot stands, as an action (D,): the one that keeps it as it is.
    That is the measured pose where actions are target poses, and zeros where they are velocities or changes of pose.
    `Limits.rate` counts the first action from there. None stands for "not known".
    """

    def observe(self) -> Observation:
        """The newest observation, under the policy's keys. An exception means that it is lost."""
        ...

    def act(self, action: np.ndarray) -> None:
        """Take up an action (D,) in the policy's units, and keep it until the next one comes."""

    def stop(self) -> None:
        """Come to rest safely, and only then print or log. Called at the end of a run, whatever ended it.

        Called once, but where a call hangs by another thread than that call's; and once more when an `act` that was
        under way comes back afterwards, as its action may have reached the robot. So it must be safe to call again.
        """


def standing(robot: Robot, start: Any = None) -> np.ndarray | None:
    """Where the robot stands, as an action: `start`, else what its `position()` says; None if neither does.

    Returns:
        (D,) or (), float64.

    Raises:
        SpecpolicyError: it is no number or list of numbers, or not finite.
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
