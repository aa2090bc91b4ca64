"""A robot of LeRobot by its name there, such as `so101_follower`, and its configuration. Imports lerobot when used."""

import contextlib
import importlib
import io
import pkgutil
from collections.abc import Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.robot import RobotAdapter
from specpolicy.integrations.lerobot.units import hint
from specpolicy.parsing import one_line

PLACES = ("lerobot.robots", "lerobot.cameras")  # their packages register what a configuration can name
TABLES = ("observation", "action", "position", "units", "fixed")


def make_adapter(settings: Mapping[str, Any]) -> RobotAdapter:
    """Return the robot of the command line, not yet connected.

    Args:
        settings: `type` and `config` as `make_robot` takes them, and by their names the tables of `RobotAdapter`; None
            for its defaults.

    Raises:
        SpecpolicyError: see `make_robot` and `RobotAdapter`.
    """
    robot = make_robot(str(settings["type"]), settings["config"])
    tables = {name: settings[name] for name in TABLES if settings[name] is not None}
    return RobotAdapter(robot, **tables)


def make_robot(kind: str, config: Mapping[str, Any]) -> Any:
    """Return a LeRobot robot, not yet connected.

    Args:
        kind: its name in LeRobot, such as "so101_follower"; robots of installed plug-ins (`lerobot_robot_...`) have
            one, too.
        config: the fields of its configuration, as LeRobot's `--robot.<field>` has them.

    Raises:
        SpecpolicyError: LeRobot is not installed, has no such robot, or refuses the configuration.
    """
    try:
        robots = importlib.import_module("lerobot.robots")
    except ImportError as error:
        raise SpecpolicyError(
            f"robot=lerobot:{kind}: LeRobot cannot be imported ({one_line(error)}): use its environment, with "
            "pip install 'specpolicy[cli]' there"
        ) from error
    failed = _register()
    known = sorted(robots.RobotConfig.get_known_choices())
    if kind not in known:
        missing = f"; not imported: {'; '.join(failed)}" if failed else ""
        raise SpecpolicyError(f"robot=lerobot:{kind}: LeRobot has no such robot{hint(kind, known)}{missing}")
    import draccus

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # draccus also prints what it raises
            decoded = draccus.decode(robots.RobotConfig, {"type": kind, **config})
        return robots.make_robot_from_config(decoded)
    except ImportError as error:  # of its drivers; LeRobot says what to install
        raise SpecpolicyError(f"robot=lerobot:{kind}: {one_line(error)}") from error
    except Exception as error:
        raise SpecpolicyError(
            f"robot=lerobot:{kind}: {one_line(f'{type(error).__name__}: {error}')}: "
            "its configuration is set by +robot.config.<field>=..."
        ) from error


def _register() -> list[str]:
    """Import everything that registers robots and cameras; return what could not be imported, and why."""
    failed = []
    for place in PLACES:
        package = importlib.import_module(place)
        for module in pkgutil.iter_modules(package.__path__, f"{place}."):
            if module.ispkg:
                try:
                    importlib.import_module(module.name)
                except Exception as error:  # each robot has its own drivers, and few users have all
                    failed.append(f"{module.name.rpartition('.')[2]} ({one_line(error, 80)})")
    importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    return failed
