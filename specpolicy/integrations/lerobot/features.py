"""Tables between the named features of a LeRobot robot and the vectors and images of a policy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.units import hint
from specpolicy.parsing import one_line, shown

STATE, IMAGES = "observation.state", "observation.images."  # LeRobot's own names of what its data sets hold
ROUTED = (".pos", ".vel")  # endings of the numbers that LeRobot's rollout shows a policy and takes from it
VELOCITY = (".vel", "_velocity")  # endings of numbers that are zero at rest
Feature = tuple[int, ...]  # shape of a robot's feature; () for a number


@dataclass(frozen=True)
class Vector:
    """Numbers of a robot in the policy's order, and the factor from each to the policy's unit."""

    names: tuple[str, ...]
    scale: np.ndarray

    def read(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the policy's vector (D,) float64.

        Raises:
            SpecpolicyError: a number that is missing or is none.
        """
        return np.array([_number(name, values) for name in self.names]) * self.scale

    def write(self, vector: np.ndarray) -> dict[str, float]:
        """Return the robot's numbers, by name, of a policy's vector (D,)."""
        return dict(zip(self.names, (np.asarray(vector, np.float64) / self.scale).tolist(), strict=True))


@dataclass(frozen=True)
class Picture:
    """A camera of a robot, or another feature that is an array, as it is."""

    name: str
    shape: Feature

    def read(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the array.

        Raises:
            SpecpolicyError: it is missing, or has another shape than the robot's features say.
        """
        if self.name not in values:
            raise SpecpolicyError(f"the robot's observation lacks '{self.name}'")
        array = np.asarray(values[self.name])
        if array.shape != self.shape:
            raise SpecpolicyError(
                f"'{self.name}' gives {_sides(array.shape)}, observation_features say {_sides(self.shape)}: "
                "correct the camera's width and height"
            )
        return array


@dataclass(frozen=True)
class Standing:
    """Where a robot stands, as an action: some entries are observed, the others known."""

    at: tuple[int, ...]  # entries that are observed
    observed: Vector | None
    known: np.ndarray

    def read(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the action (D,)."""
        found = self.known.copy()
        if self.observed is not None:
            found[list(self.at)] = self.observed.read(values)
        return found


def features_of(robot: Any, which: str) -> dict[str, Feature]:
    """Return the shapes of `observation_features` or `action_features`, () for single numbers.

    Raises:
        SpecpolicyError: the robot has none, or one of an unknown kind.
    """
    found = getattr(robot, which, None)
    if not isinstance(found, Mapping) or not found:
        raise SpecpolicyError(f"{type(robot).__name__} is no robot of LeRobot: it has no {which}")
    features: dict[str, Feature] = {}
    for name, kind in found.items():
        if kind in (float, int, bool):
            features[str(name)] = ()
        elif isinstance(kind, tuple | list) and kind and all(isinstance(side, int) for side in kind):
            features[str(name)] = tuple(kind)
        else:
            raise SpecpolicyError(f"{which} of {type(robot).__name__}: '{name}' is {shown(kind)}, no type and no shape")
    return features


def routed(features: Mapping[str, Feature]) -> tuple[str, ...]:
    """Return the numbers that LeRobot's rollout uses, in the robot's order: positions and velocities, else all."""
    numbers = [name for name, shape in features.items() if not shape]
    return tuple(name for name in numbers if name.endswith(ROUTED)) or tuple(numbers)


def vector(names: Any, features: Mapping[str, Feature], factors: Mapping[str, float], what: str) -> Vector:
    """Return the table of a vector.

    Args:
        names: of the robot's numbers, in the policy's order.
        features: see `features_of`.
        factors: see `scales`.
        what: name of the table, for messages.

    Raises:
        SpecpolicyError: no list of names, a name that the robot does not have or that is an array, or one given twice.
    """
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise SpecpolicyError(f"{what} is {shown(names)}: expected a list of the robot's joints, in the policy's order")
    for name in names:
        if not isinstance(name, str) or name not in features:
            raise SpecpolicyError(f"{what}: the robot has no joint {shown(name)}{hint(name, features)}")
        if features[name]:
            raise SpecpolicyError(f"{what}: '{name}' is an array of {_sides(features[name])}, not a joint")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise SpecpolicyError(f"{what} names '{twice[0]}' twice")
    return Vector(tuple(names), np.array([factors.get(name, 1.0) for name in names]))


def observed(
    table: Mapping[str, Any] | None, features: Mapping[str, Feature], factors: Mapping[str, float]
) -> dict[str, Vector | Picture]:
    """Return by the policy's key what it observes of the robot; None: all, by LeRobot's own names.

    Raises:
        SpecpolicyError: see `vector`; or no such camera.
    """
    if table is None:
        own = {f"{IMAGES}{name}": name for name, shape in features.items() if shape}
        numbers = routed(features)
        table = {**({STATE: numbers} if numbers else {}), **own}
    if not isinstance(table, Mapping) or not table:
        raise SpecpolicyError(f"observation is {shown(table)}: expected {{the policy's key: joints, or a camera}}")
    found: dict[str, Vector | Picture] = {}
    for key, entry in table.items():
        if not isinstance(entry, str):
            found[str(key)] = vector(entry, features, factors, f"observation '{key}'")
        elif entry not in features:
            cameras = [name for name, shape in features.items() if shape]
            raise SpecpolicyError(f"observation '{key}': the robot has no camera '{entry}'{hint(entry, cameras)}")
        elif features[entry]:
            found[str(key)] = Picture(entry, features[entry])
        else:
            found[str(key)] = vector([entry], features, factors, f"observation '{key}'")
    return found


def standing(
    told: Sequence[str | float] | None,
    action: Sequence[str],
    features: Mapping[str, Feature],
    factors: Mapping[str, float],
) -> Standing | None:
    """Return the table of a position; without one, the action's own names and 0 for velocities. None: not known.

    Raises:
        SpecpolicyError: not one entry for each of an action, or an entry that is neither observed nor a number.
    """
    if told is None:
        told = [0.0 if name.endswith(VELOCITY) else name for name in action]
        if not all(features.get(one) == () for one in told if isinstance(one, str)):
            return None
    if isinstance(told, str) or not isinstance(told, Sequence) or len(told) != len(action):
        raise SpecpolicyError(f"position is {shown(told)}: expected {len(action)} entries, one for each of an action")
    for one in told:
        if (
            isinstance(one, bool)
            or not isinstance(one, str | int | float)
            or one in (math.inf, -math.inf)
            or one != one
        ):
            raise SpecpolicyError(f"position: {shown(one)} is neither the name of an observed number nor a number")
    at = tuple(index for index, one in enumerate(told) if isinstance(one, str))
    measured = vector([told[index] for index in at], features, factors, "position") if at else None
    return Standing(at, measured, np.array([0.0 if isinstance(one, str) else float(one) for one in told]))


def check_fits(table: Mapping[str, Vector | Picture], shapes: Mapping[str, int | Sequence[int]], robot: str) -> None:
    """Compare what a policy observes, {key: shape}, with what it is shown.

    Raises:
        SpecpolicyError: a key that is missing, or of another size.
    """
    for key, shape in shapes.items():
        wanted = (shape,) if isinstance(shape, int) else tuple(shape)
        if key not in table:
            raise SpecpolicyError(
                f"the policy observes '{key}', which {robot} is not told to show (it shows {', '.join(table)}): "
                "give it in the table observation"
            )
        entry = table[key]
        found = entry.shape if isinstance(entry, Picture) else (len(entry.names),)
        if found not in (wanted, (*wanted[1:], wanted[0])):  # a policy's images have their channels first
            raise SpecpolicyError(
                f"the policy expects '{key}' of size {_sides(wanted)}, {robot} shows {_sides(found)}: "
                f"{'set the camera to that' if isinstance(entry, Picture) else 'name other joints'}"
            )


def _number(name: str, values: Mapping[str, Any]) -> float:
    try:
        return float(values[name])
    except KeyError:
        raise SpecpolicyError(f"the robot's observation lacks '{name}'") from None
    except (TypeError, ValueError):
        raise SpecpolicyError(f"the robot's '{name}' is {one_line(shown(values[name]))}, no number") from None


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
