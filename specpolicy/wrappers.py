"""Wrappers that make a Gymnasium environment of another package look like one of ours."""

import difflib
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from specpolicy.errors import SpecpolicyError
from specpolicy.images import as_recorded

# Held while an environment of another package is made or reset: some keep what they draw in globals meanwhile, and
# environments of several threads would get each other's scenes.
FOREIGN = threading.RLock()
CHANNELS = (1, 3, 4)  # of an image: grey, colours, colours with transparency


class DictObservation(gymnasium.ObservationWrapper):
    """Observations as a dict of arrays: a Box becomes `{"state": ...}`, a Dict keeps its keys, and a Dict within a Dict
    gives names with dots, such as `pixels.top`.

    Images of bytes stay as they are, everything else becomes float32, a number by itself a vector of one. Images whose
    channels come first, by the environment's space, get them last, as ours have them.
    """

    def __init__(self, env: gymnasium.Env, name: str) -> None:
        super().__init__(env)
        self._task = name
        space = env.observation_space
        self._is_box = isinstance(space, spaces.Box)
        if self._is_box:
            space = spaces.Dict({"state": space})
        if not isinstance(space, spaces.Dict):
            raise SpecpolicyError(f"task {name}: the observation is {space}; a Box or a Dict of Boxes is needed")
        self._parts: dict[str, tuple[tuple[str, ...], tuple[int, ...], bool]] = {}
        boxes: dict[str, spaces.Space] = {}
        for path, part in _leaves(space):
            key = ".".join(path)
            if not isinstance(part, spaces.Box):
                raise SpecpolicyError(f"task {name}: the observation '{key}' is {part}; a Box is needed")
            if key in boxes:
                raise SpecpolicyError(f"task {name}: two of its observations would be called '{key}'")
            turned = _has_channels_first(part)
            self._parts[key] = path, part.shape, turned
            low, high = (_as_vector(np.moveaxis(side, 0, -1) if turned else side) for side in (part.low, part.high))
            boxes[key] = spaces.Box(low, high, dtype=low.dtype.type)
        self.observation_space = spaces.Dict(boxes)

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """Return the arrays by name.

        Raises:
            SpecpolicyError: an image has another shape than the environment's space says.
        """
        parts = {"state": observation} if self._is_box else observation
        found = {}
        for key, (path, shape, turned) in self._parts.items():
            value = parts
            for name in path:
                value = value[name]
            array = np.asarray(value)
            if len(shape) == 3 and array.shape != shape:
                raise SpecpolicyError(f"task {self._task}: {_other_shape(key, array.shape, shape)}")
            found[key] = _as_vector(np.ascontiguousarray(np.moveaxis(array, 0, -1)) if turned else array)
        return found


class RenamedObservation(gymnasium.ObservationWrapper):
    """Observations under the names that a policy knows.

    Args:
        env: its observation is a dict of arrays.
        rename: {name for the policy: name in the environment}. An observation may get several names; those that are
            not named here keep theirs.
        name: of the task, for messages.

    Raises:
        SpecpolicyError: `rename` is no such mapping, the environment has no observation of a name, or two would get the
            same.
    """

    def __init__(self, env: gymnasium.Env, rename: Mapping[str, str], name: str) -> None:
        super().__init__(env)
        there = list(env.observation_space.spaces)  # type: ignore[attr-defined]
        if not isinstance(rename, Mapping) or not all(isinstance(old, str) for old in rename.values()):
            raise SpecpolicyError(
                f"task.rename={rename}: expected {{the policy's name: the environment's}}, such as "
                "{observation.image: pixels}"
            )
        wanted = {str(new): old for new, old in rename.items()}
        for new, old in wanted.items():
            if old not in there:
                hint = name_hint(old, there) or ("write the policy's name first" if new in there else "")
                hint = f"; {hint}" if hint else ""
                raise SpecpolicyError(
                    f"task.rename={{{new}: {old}}}: task {name} has no observation '{old}'{hint}; it has "
                    f"{', '.join(there)}"
                )
        self._sources = {key: key for key in there if key not in wanted.values()}
        for new, old in wanted.items():
            if new in self._sources:
                raise SpecpolicyError(
                    f"task.rename={{{new}: {old}}}: task {name} has another observation of the name '{new}'; rename "
                    "that one as well"
                )
        self._sources |= wanted
        boxes = {new: env.observation_space[old] for new, old in self._sources.items()}  # type: ignore[index]
        self.observation_space = spaces.Dict(boxes)

    def observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        return {new: observation[old] for new, old in self._sources.items()}


class SuccessInfo(gymnasium.Wrapper):
    """`info["is_success"]` at every step and reset: the environment's own, else its `success`, else False. Resets of
    several threads take turns."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        with FOREIGN:
            observation, info = self.env.reset(**kwargs)
        return observation, self._with_success(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._with_success(info)

    @staticmethod
    def _with_success(info: dict[str, Any]) -> dict[str, Any]:
        success = info.get("is_success", info.get("success", False))
        return {**info, "is_success": bool(np.all(success))}


class SeededReset(gymnasium.Wrapper):
    """A seed of `reset` for environments that ignore it and have a method `seed`, as Meta-World's."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            base: Any = self.env.unwrapped
            base.seed(seed)
        return self.env.reset(seed=seed, options=options)


def name_hint(key: str, there: Collection[str]) -> str:
    """What may have been meant by the name of an observation that is not there; "" if nothing is near."""
    nested = [one for one in there if one.startswith(f"{key}.") or one.endswith(f".{key}")]
    if nested:
        return f"it is nested: write {' or '.join(nested)}"
    near = difflib.get_close_matches(key, there, n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def _leaves(space: spaces.Dict, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], spaces.Space]]:
    """Yield the spaces that are no Dict, with the keys that lead to each."""
    for key, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            yield from _leaves(part, (*above, key))
        else:
            yield (*above, key), part


def _as_vector(value: np.ndarray) -> np.ndarray:
    return np.atleast_1d(as_recorded(value))


def _has_channels_first(box: spaces.Box) -> bool:
    """Whether a space holds images, of bytes or of floats in [0, 1], with the channels first."""
    if len(box.shape) != 3 or box.shape[0] not in CHANNELS or box.shape[2] in CHANNELS:
        return False
    floats = np.issubdtype(box.dtype, np.floating) and bool(np.all(box.low == 0) and np.all(box.high == 1))
    return box.dtype == np.uint8 or floats


def _other_shape(key: str, found: tuple[int, ...], promised: tuple[int, ...]) -> str:
    line = f"the images '{key}' have shape {found}, its observation space says {promised}"
    if found == (promised[2], *promised[:2]):
        return f"{line}: the channels come first where the space has them last"
    if found == (*promised[1:], promised[0]):
        return f"{line}: the channels come last where the space has them first"
    return line
