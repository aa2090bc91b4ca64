"""What the control loop knows of a robot."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

Observation = Mapping[str, np.ndarray]


class Robot(Protocol):
    """A robot: three methods, none of which should take longer than a small part of a control period.

    The loop calls them from one thread of its own. Only if a call does not come back is `stop` called from another.
    """

    def observe(self) -> Observation:
        """The newest observation, under the policy's keys. An exception means that it is lost."""
        ...

    def act(self, action: np.ndarray) -> None:
        """Take up an action (D,) in the policy's units, and keep it until the next one comes."""

    def stop(self) -> None:
        """Come to rest safely. Called once at the end of a run, whatever ended it."""
