"""Units of a LeRobot robot's numbers: angles in degrees, or normalised ranges of its motors."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import closest, shown

# How a number of the robot becomes the policy's.
UNITS = {"same": 1.0, "degrees_to_radians": math.pi / 180, "radians_to_degrees": 180 / math.pi}
# How LeRobot's motors are read and written, by its name: the range of the numbers; None: angles in degrees.
MODES: dict[str, tuple[float, float] | None] = {
    "range_m100_100": (-100.0, 100.0),
    "range_0_100": (0.0, 100.0),
    "degrees": None,
}
ARMS = ("", "left_", "right_")  # a robot of two arms has an object for each, and their names in front of its features


def buses(robot: Any) -> Iterator[tuple[str, Any]]:
    """Yield what of a robot has motors on a `bus`, the robot itself or its two arms, with what its features begin
    with."""
    for prefix in ARMS:
        part = getattr(robot, f"{prefix}arm", None) if prefix else robot
        if getattr(part, "bus", None) is not None:
            yield prefix, part


def modes_of(robot: Any) -> dict[str, str]:
    """Return by feature how the robot's motors are read and written, as far as it tells: names of `MODES`."""
    modes: dict[str, Any] = {}
    for prefix, part in buses(robot):
        motors = getattr(part.bus, "motors", None)
        found = motors.items() if isinstance(motors, Mapping) else ()
        modes |= {f"{prefix}{name}.pos": getattr(motor, "norm_mode", None) for name, motor in found}
    return {name: str(getattr(mode, "value", mode)) for name, mode in modes.items() if mode is not None}


def scales(units: str | Mapping[str, str], known: Sequence[str], modes: Mapping[str, str]) -> dict[str, float]:
    """Return the factors of the numbers whose unit changes.

    Args:
        units: a name of `UNITS` for all joints that the robot says to be angles, or one for each of some joints.
        known: the robot's numbers.
        modes: see `modes_of`.

    Raises:
        SpecpolicyError: an unknown unit or joint, or a joint whose numbers are no angles.
    """
    by_name = isinstance(units, Mapping)
    table = dict(units) if isinstance(units, Mapping) else dict.fromkeys(known, units)
    for name, unit in table.items():
        if not isinstance(unit, str) or unit not in UNITS:
            raise SpecpolicyError(f"units: unknown unit {shown(unit)}: use one of {', '.join(UNITS)}")
        if name not in known:
            raise SpecpolicyError(f"units: the robot has no joint '{name}'{hint(name, known)}")
        ranges = MODES.get(modes.get(name, ""))
        if by_name and unit != "same" and ranges is not None:
            raise SpecpolicyError(
                f"units: '{name}' is no angle: the robot gives it from {ranges[0]:g} to {ranges[1]:g}, so leave it out"
            )
    if not by_name and units != "same":
        if not any(name in modes for name in known):
            raise SpecpolicyError(
                f"units={units}: this robot does not tell which of its numbers are angles: "
                f"name them, such as units={{'{known[0]}': '{units}'}}"
            )
        table = {name: unit for name, unit in table.items() if modes.get(name) == "degrees"}
    return {name: UNITS[unit] for name, unit in table.items()}


def hint(name: Any, known: Iterable[str]) -> str:
    """Return the end of a message about a name that is not known: the nearest one, or all."""
    names = list(known)
    nearest = closest(name, names) if isinstance(name, str) else ""
    return nearest or f"; it has {', '.join(names) or 'none'}"
