"""Reads the frames of an observation from a client's message: checked first, converted afterwards.

numpy makes an array of nearly everything, at any cost: a list of one long text and many empty ones becomes an array of
equally long texts. A policy knows how many numbers it observes, so a list is checked entry by entry up to that number.
"""

from typing import Any

import numpy as np
import torch

from specpolicy.images import is_image, unit_images
from specpolicy.serving.scan import ProtocolError

DTYPE = np.float32  # dtype of policies


def read_frames(key: str, value: Any, shape: tuple[int, ...], n_obs_steps: int) -> np.ndarray:
    """Return the frames (1, ...) or (n_obs_steps, ...) of one key, as float32; images in [0, 1], channels first.

    Args:
        key: its name, for messages.
        value: arrays, or lists of numbers.
        shape: of one frame. Images (three numbers) may have their channels last.
        n_obs_steps: of the policy.

    Raises:
        ProtocolError: one line: another shape, no numbers, or one that is not finite as float32.
        SpecpolicyError: images that are neither bytes nor in [0, 1].
    """
    shapes = {shape, (*shape[1:], shape[0])} if is_image(shape) else {shape}
    found = _shape(key, value, len(shape) + 1)
    if found not in shapes and (found[1:] not in shapes or found[0] != n_obs_steps):
        raise ProtocolError(
            f"'{key}' has shape {found}: expected {shape}, or ({n_obs_steps}, ...) for all frames at once"
        )
    if not _has_shape(value, found):
        raise ProtocolError(f"'{key}' is not an array of numbers")
    if is_image(shape) and len(kinds := _kinds(value)) > 1 and "uint8" in kinds:
        raise ProtocolError(f"'{key}' mixes bytes with other numbers in one list: give all of it as bytes or as floats")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":  # whole numbers of more than 64 bits
        raise ProtocolError(f"'{key}' has dtype {array.dtype}: expected numbers")
    array = array[None] if found in shapes else array
    # Numbers become floats, except in images, where bytes have another meaning.
    dtype = array.dtype.newbyteorder("=") if is_image(shape) and array.dtype.kind != "f" else np.dtype(DTYPE)
    if array.dtype != dtype:
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ProtocolError(f"'{key}' has values that are not finite in {np.dtype(DTYPE)}")
    if is_image(shape):
        # Some frames are bytes, others floats. A history holds both, so all become alike here.
        return unit_images(key, torch.from_numpy(np.array(array)), shape).numpy()
    return array


def read_table(key: str, value: Any, most: int) -> np.ndarray:
    """Return a table (n, D) of finite numbers as float64, from an array or lists of numbers.

    Args:
        key: its name, for messages.
        value: the table.
        most: the largest n.

    Raises:
        ProtocolError: one line: another shape, no numbers, or one that is not finite.
    """
    found = _shape(key, value, 2)
    if len(found) != 2 or found[0] > most:
        raise ProtocolError(f"'{key}' has shape {found}: expected (n, D) with n at most {most}")
    if not _has_shape(value, found):
        raise ProtocolError(f"'{key}' is not an array of numbers")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or not np.isfinite(array := array.astype(np.float64)).all():
        raise ProtocolError(f"'{key}' has values that are not finite numbers")
    return array


def _shape(key: str, value: Any, most: int) -> tuple[int, ...]:
    """Return the shape of an array or of nested lists, by the first entry of each."""
    sizes: list[int] = []
    while isinstance(value, list | tuple):
        sizes.append(len(value))
        if len(sizes) > most:
            raise ProtocolError(f"'{key}' has more than {most} lists in each other")
        if not value:
            return tuple(sizes)
        value = value[0]
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biuf":
            raise ProtocolError(f"'{key}' has dtype {value.dtype}: expected numbers")
        return (*sizes, *value.shape)
    if not isinstance(value, bool | int | float):
        kind = "object" if value is None else type(value).__name__
        raise ProtocolError(f"'{key}' has dtype {kind}: expected numbers")
    return tuple(sizes)


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether arrays or nested lists hold numbers, in exactly this shape."""
    if isinstance(value, np.ndarray | np.generic):
        return value.shape == shape and value.dtype.kind in "biuf"
    if not shape:
        return isinstance(value, bool | int | float)
    return (
        isinstance(value, list | tuple)
        and len(value) == shape[0]
        and all(_has_shape(entry, shape[1:]) for entry in value)
    )


def _kinds(value: Any) -> set[str]:
    """Return the types of the arrays and numbers in nested lists."""
    if isinstance(value, list | tuple):
        return set().union(*map(_kinds, value))
    return {str(value.dtype) if isinstance(value, np.ndarray | np.generic) else "number"}
