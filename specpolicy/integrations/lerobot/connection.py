"""Switches a LeRobot robot on, and off whatever happens."""

import contextlib
import inspect
import threading
from collections.abc import Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.features import VELOCITY
from specpolicy.integrations.lerobot.units import buses
from specpolicy.parsing import one_line


class Connection:
    """The connection of a LeRobot `robot`, which may be connected already; `name`: for messages."""

    def __init__(self, robot: Any, name: str):
        self.robot, self.name = robot, name
        self._open = bool(robot.is_connected)
        self._ending = threading.Lock()

    def connect(self, calibrate: bool) -> bool:
        """See `RobotAdapter.connect`. Return whether the robot was not connected before."""
        begun = False
        try:
            if not self.robot.is_connected:
                begun = True
                takes = inspect.signature(self.robot.connect).parameters
                self.robot.connect(**({"calibrate": calibrate} if "calibrate" in takes else {}))
            self._open = True
            # Some robots say nothing, None. Others read it from their motors, which may fail, too.
            calibrated = getattr(self.robot, "is_calibrated", True) is not False
        except Exception as error:
            self._give_up()
            raise SpecpolicyError(
                f"{self.name} cannot be connected: {words_of(error)}: check its power, cable and port"
            ) from error
        except BaseException:  # Ctrl-C meanwhile
            self._give_up()
            raise
        if not calibrated:
            self._give_up()
            kind = getattr(getattr(self.robot, "config", None), "type", self.name)  # its name in LeRobot's registry
            raise SpecpolicyError(
                f"{self.name} is not calibrated: run lerobot-calibrate --robot.type={kind} "
                f"--robot.id={getattr(self.robot, 'id', None)}"
            )
        return begun

    def end(self, sent: Mapping[str, float]) -> bool:
        """See `RobotAdapter.stop`. Return whether the robot is at rest now.

        Args:
            sent: what the robot was sent last over this connection, by name.
        """
        if not self._ending.acquire(blocking=False):
            return False
        try:
            if self._open or self._reports_open():  # its owner may have connected it without us
                self._come_to_rest(sent)
            return True
        finally:
            self._ending.release()

    def _reports_open(self) -> bool:
        try:
            return bool(self.robot.is_connected)
        except Exception:
            return False

    def _come_to_rest(self, sent: Mapping[str, float]) -> None:
        wheels = {name: 0.0 for name in sent if name.endswith(VELOCITY)}
        failed: Exception | None = None
        try:
            if wheels:
                self.robot.send_action({**sent, **wheels})
        except Exception as error:
            failed = error
        try:
            self._disconnect()
            self._open = False
        except Exception as error:
            failed = failed or error
        if failed is not None:
            raise SpecpolicyError(f"{self.name} is not at rest: {words_of(failed)}: switch its power off") from failed

    def _disconnect(self) -> None:
        try:
            self.robot.disconnect()
        except Exception:
            # LeRobot's robots refuse to disconnect when one of their cameras is gone, and their motors would stay on.
            parts = [part for _, part in buses(self.robot) if getattr(part.bus, "is_connected", False)]
            if not parts:
                raise
            with contextlib.ExitStack() as every:  # each is told, whatever happens to the others
                for part in parts:
                    release = getattr(getattr(part, "config", None), "disable_torque_on_disconnect", True)
                    every.callback(part.bus.disconnect, release)

    def _give_up(self) -> None:
        """Close what a connection that failed may have left open."""
        self._open = False
        with contextlib.suppress(Exception):
            self._disconnect()


def words_of(error: BaseException) -> str:
    """Return an error of a driver in one line."""
    return one_line(f"{type(error).__name__}: {error}")
