"""Checks that keep broken observations and broken chunks away from a robot."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from specpolicy.control.chunk import Chunk
from specpolicy.errors import SpecpolicyError
from specpolicy.images import drawn_on_demand

COSTS = ("seconds", "network_seconds", "calls", "rows", "encode_seconds")  # of a `Chunk`


def check_observation(observation: Any, like: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Return the observation as arrays. Pictures that are drawn on demand stay as they are.

    Args:
        observation: what the robot returned.
        like: an earlier observation, with the same keys, shapes and dtypes.

    Raises:
        SpecpolicyError: it is not a mapping, has other keys, another shape or dtype, or a value that is not finite.
    """
    if not isinstance(observation, Mapping) or not observation:
        kind = "an empty one" if isinstance(observation, Mapping) else type(observation).__name__
        raise SpecpolicyError(f"lost observation: robot.observe() must return a mapping of arrays, got {kind}")
    arrays = {str(key): value if drawn_on_demand(value) else np.asarray(value) for key, value in observation.items()}
    for key, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise SpecpolicyError(f"lost observation: '{key}' holds {value.dtype}, not numbers")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise SpecpolicyError(f"lost observation: '{key}' has a value that is not finite")
    for key, value in (like or {}).items():
        if key not in arrays:
            raise SpecpolicyError(f"lost observation: '{key}' is missing")
        if arrays[key].shape != value.shape:
            raise SpecpolicyError(
                f"lost observation: '{key}' has shape {arrays[key].shape}, at the start it had {value.shape}"
            )
        if arrays[key].dtype != value.dtype:
            raise SpecpolicyError(
                f"lost observation: '{key}' is {arrays[key].dtype}, at the start it was {value.dtype}"
            )
    for key in arrays.keys() - (like or arrays).keys():
        raise SpecpolicyError(f"lost observation: '{key}' is new, at the start there was {', '.join(like or {})}")
    return arrays


def check_chunk(chunk: Chunk, action_shape: tuple[int, ...] | None = None) -> None:
    """Refuse a chunk that cannot be executed.

    Args:
        action_shape: the shape of one action, if known.

    Raises:
        SpecpolicyError: it has no actions, actions of another shape or of no numbers, or one that is not finite; or a
            cost that is no number.
    """
    actions = np.asarray(chunk.actions)
    if actions.dtype.kind not in "fiu":  # truth values have no differences, so no rate
        raise SpecpolicyError(f"the policy plans actions of dtype {actions.dtype}: expected numbers")
    if actions.ndim != 2 or not len(actions) or not actions.shape[1]:
        raise SpecpolicyError(
            f"the policy plans actions of shape {actions.shape}: expected (steps, dimensions), at least one of each"
        )
    if action_shape is not None and actions.shape[1:] != action_shape:
        raise SpecpolicyError(
            f"the policy plans actions of shape {actions.shape[1:]}, the robot takes {action_shape}: "
            "was it trained on another task?"
        )
    if not np.isfinite(actions).all():
        raise SpecpolicyError("the policy planned an action that is not finite: check its weights and the observation")
    for name in COSTS:  # the record of the run takes numbers only: better now than when the robot moves
        value = getattr(chunk, name)
        try:
            known = math.isfinite(value)
        except (TypeError, ValueError, OverflowError):
            known = False
        if not known:
            raise SpecpolicyError(f"a chunk's {name} is {value!r:.40}: expected a number")
