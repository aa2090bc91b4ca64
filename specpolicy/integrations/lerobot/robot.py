"""A robot of Hugging Face LeRobot as a robot of `specpolicy.control`, without importing lerobot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.connection import Connection, words_of
from specpolicy.integrations.lerobot.features import (
    VELOCITY,
    check_fits,
    features_of,
    observed,
    routed,
    standing,
    vector,
)
from specpolicy.integrations.lerobot.units import MODES, modes_of, scales
from specpolicy.parsing import shown

METHODS = ("connect", "disconnect", "get_observation", "send_action")


class RobotAdapter:
    """Drives any LeRobot `Robot` with `specpolicy.control.Controller`.

    A LeRobot robot observes and takes named numbers; a policy sees vectors and images, and plans vectors. Tables say
    which is which; without one they are as in LeRobot's own data sets and rollout.

    Use it in a `with` block, which connects the robot and, whatever happens, disconnects it:

        with RobotAdapter(SO101Follower(config)) as robot:
            Controller(policy, robot, hz=30, limits=Limits(rate=60)).run(seconds=60)

    `stop` disconnects, too, so each run needs a connection of its own.

    Args:
        robot: an object of a subclass of `lerobot.robots.Robot`; connected, or not yet.
        observation: {the policy's key: names of the robot's numbers in the policy's order, or the name of a camera}.
            None: `observation.state` with all positions and velocities in the robot's order, and
            `observation.images.<name>` for each camera.
        action: names of the numbers that an action of the policy holds, in its order. None: all positions and
            velocities in the robot's order.
        position: where the robot stands, as an action: for each entry the name of an observed number, or a number.
            None: the action's own names, as far as the robot observes them, and 0 for velocities. Where one is
            neither, the position is not known.
        units: "degrees_to_radians" or "radians_to_degrees": from the robot's unit to the policy's, {joint: unit}, or
            one for all joints that the robot says to be angles. Numbers that LeRobot normalises, from -100 to 100 or
            from 0 to 100, stay as they are.
        fixed: numbers of the robot's action that are no part of the policy's, with the value to send.
        on_sent: called in each period with (the policy's action, what the robot says it was really sent), (D,) each in
            the policy's units: for whoever records the run.

    Attributes:
        sent: (D,) what the robot was really sent last, in the policy's units; None before.
        actions: number of actions that were sent.
        changed: number of them that the robot changed before it sent them, such as by its `max_relative_target`.

    Raises:
        SpecpolicyError: no LeRobot robot, or a table that does not fit it.
    """

    def __init__(
        self,
        robot: Any,
        observation: Mapping[str, Any] | None = None,
        action: Sequence[str] | None = None,
        position: Sequence[str | float] | None = None,
        *,
        units: str | Mapping[str, str] = "same",
        fixed: Mapping[str, float] | None = None,
        on_sent: Callable[[np.ndarray, np.ndarray], object] | None = None,
    ):
        missing = [name for name in METHODS if not callable(getattr(robot, name, None))]
        if missing:
            raise SpecpolicyError(f"{type(robot).__name__} is no robot of LeRobot: it has no method {missing[0]}()")
        self.robot, self.name = robot, str(getattr(robot, "name", type(robot).__name__))
        sees, takes = features_of(robot, "observation_features"), features_of(robot, "action_features")
        modes = modes_of(robot)
        numbers = [name for name, shape in {**sees, **takes}.items() if not shape]
        factors = scales(units, numbers, modes)
        self._observation = observed(observation, sees, factors)
        self._fixed = _fixed(fixed or {}, takes)
        names = [name for name in routed(takes) if name not in self._fixed] if action is None else action
        self._action = vector(names, takes, factors, "action")
        twice = [name for name in self._action.names if name in self._fixed]
        forgotten = [name for name in routed(takes) if name not in self._action.names and name not in self._fixed]
        if twice:
            raise SpecpolicyError(f"'{twice[0]}' is both in action and in fixed")
        if forgotten:
            raise SpecpolicyError(
                f"action lacks '{forgotten[0]}', which {self.name} takes, too: "
                "name it, or give what to send in its place by fixed={...}"
            )
        self._position = standing(position, self._action.names, sees, factors)
        self._ranges = [MODES.get(modes.get(name, "")) for name in self._action.names]
        if not (on_sent is None or callable(on_sent)):
            raise SpecpolicyError(f"on_sent is {shown(on_sent)}: expected a function of two actions")
        self._on_sent = on_sent
        self._raw: dict[str, float] = {}  # what it was sent last, by name
        self.sent: np.ndarray | None = None
        self.actions = self.changed = 0
        self._connection = Connection(robot, self.name)

    @property
    def action_dim(self) -> int:
        """Numbers of an action."""
        return len(self._action.names)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest action (D,) that the robot executes: of what LeRobot normalises its range, else
        infinite."""
        low, high = zip(*(one or (-np.inf, np.inf) for one in self._ranges), strict=True)
        return np.array(low), np.array(high)

    @property
    def hold(self) -> tuple[float | None, ...] | None:
        """The action that holds the robot still (see `Execution`): no velocity, else the last one; None: the last."""
        still = tuple(0.0 if name.endswith(VELOCITY) else None for name in self._action.names)
        return still if 0.0 in still else None

    def check(self, shapes: Mapping[str, int | Sequence[int]], action_dim: int | None = None) -> None:
        """Refuse a policy that does not fit the tables.

        Args:
            shapes: {key: size of a frame} of what it observes: `policy.encoder.shapes`.
            action_dim: numbers of its actions; None is not checked.

        Raises:
            SpecpolicyError: a key that is missing or of another size, such as a camera's; other actions.
        """
        check_fits(self._observation, shapes, self.name)
        if action_dim is not None and action_dim != self.action_dim:
            raise SpecpolicyError(
                f"an action of the policy has {action_dim} numbers, {self.name} takes {self.action_dim} "
                f"({', '.join(self._action.names)}): give the table action"
            )

    def connect(self, calibrate: bool = False) -> RobotAdapter:
        """Connect the robot, unless it is connected.

        Args:
            calibrate: let LeRobot ask for a calibration at the terminal where there is none.

        Raises:
            SpecpolicyError: it cannot be connected, or is not calibrated.
        """
        if self._connection.connect(calibrate):
            self._raw, self.sent = {}, None  # nothing was sent over this connection yet
        return self

    def __enter__(self) -> RobotAdapter:
        return self.connect()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def observe(self) -> dict[str, np.ndarray]:
        """Return the newest observation, vectors float32 and images as the cameras give them.

        Raises:
            SpecpolicyError: the robot is not connected, or gives something else than its features say.
        """
        values = self._values()
        found = {key: entry.read(values) for key, entry in self._observation.items()}
        return {key: one.astype(np.float32) if one.dtype == np.float64 else one for key, one in found.items()}

    def act(self, action: np.ndarray) -> None:
        """Send an action (D,) in the policy's units.

        Raises:
            SpecpolicyError: an action of another size, or not of finite numbers; the robot is not connected.
        """
        action = np.asarray(action)
        if action.shape != (self.action_dim,):
            raise SpecpolicyError(f"an action of shape {action.shape}: {self.name} takes ({self.action_dim},)")
        if action.dtype.kind not in "fiu" or not np.isfinite(action).all():
            raise SpecpolicyError(f"an action that is not of finite numbers: {self.name} is not sent it")
        asked = {**self._action.write(action), **self._fixed}
        self._raw = self._raw or asked  # should the first call raise or hang, its velocities have to be set to zero
        answer = self._asked(self.robot.send_action, dict(asked))
        # Some robots answer with a part of what they were sent, with more than that, or with nothing.
        told = answer if isinstance(answer, Mapping) else {}
        self._raw = {name: told.get(name, value) for name, value in asked.items()}
        self.sent = self._action.read(self._raw)
        self.actions += 1
        self.changed += not np.allclose(self.sent, action, rtol=1e-5, atol=1e-5)
        if self._on_sent is not None:
            self._on_sent(action, self.sent)

    def position(self) -> np.ndarray | None:
        """Return where the robot stands now, as an action (D,); None if not known."""
        if self._position is None:
            return None
        return self._position.read({} if self._position.observed is None else self._values())

    def stop(self) -> None:
        """Set velocities to zero and disconnect the robot; its own settings say whether its motors are released.

        While another thread does so, a call returns at once.

        Raises:
            SpecpolicyError: it cannot be disconnected.
        """
        if self._connection.end(self._raw):
            self._raw = {}  # in a later connection it may stand elsewhere

    def _values(self) -> Mapping[str, Any]:
        """Return what the robot observes, by name."""
        values = self._asked(self.robot.get_observation)
        if not isinstance(values, Mapping):
            raise SpecpolicyError(f"{self.name} observes {shown(values)}: expected a mapping")
        return values

    def _asked(self, method: Callable[..., Any], *given: Any) -> Any:
        """Call a method of the robot; where it is not connected, say so."""
        try:
            return method(*given)
        except Exception as error:
            if not self.robot.is_connected:
                raise SpecpolicyError(
                    f"{self.name} is not connected ({words_of(error)}): connect() it before the run, in a with block"
                ) from error
            raise


def _fixed(values: Mapping[str, float], takes: Mapping[str, Any]) -> dict[str, float]:
    if not isinstance(values, Mapping):
        raise SpecpolicyError(f"fixed is {shown(values)}: expected {{joint: value to send}}")
    for name, value in values.items():
        if name not in takes:
            raise SpecpolicyError(f"fixed: the robot takes no '{name}'; it takes {', '.join(takes)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise SpecpolicyError(f"fixed: '{name}' is {shown(value)}: expected a finite number, in the robot's unit")
    return {name: float(value) for name, value in values.items()}
