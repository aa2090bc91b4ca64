"""The images of robomimic's HDF5 files: `obs/<camera>_image`, (T, H, W, C) uint8, packed or not."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from specpolicy.data.bounds import check_dataset
from specpolicy.data.frames import Source
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import one_line

CHANNELS = (1, 3, 4)


class HDF5Images(Source):
    """The file of a data set; a place is the name of an array in it."""

    def __init__(self, path: str | Path):
        super().__init__()
        self.path = str(path)

    def open(self) -> h5py.File:
        """See `Source.open`."""
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise SpecpolicyError(f"{self.path} is not a readable HDF5 file ({one_line(error)})") from None

    def read(self, where: str, steps: np.ndarray) -> np.ndarray:
        """See `Source.read`."""
        try:
            array: Any = self.opened[where]
            first, last = int(steps[0]), int(steps[-1])
            if last - first + 1 == len(steps):
                return array[first : last + 1]
            return np.stack([array[int(step)] for step in steps])
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:  # a damaged chunk, a file cut short
            raise SpecpolicyError(f"{self.path}: {where} cannot be read ({one_line(error)})") from None


def check_images(
    array: h5py.Dataset, where: str, path: str | Path, length: int | None, size: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Return (H, W, C) of an array of images.

    Args:
        array: as found in the file.
        where: its name, for messages.
        path: of the file.
        length: how many there must be.
        size: (H, W, C) of those of other demonstrations; None: these are the first.

    Raises:
        SpecpolicyError: they are no bytes, channels do not come last, sizes differ.
    """
    shape = array.shape
    if len(shape) == 4 and shape[1] in CHANNELS and shape[-1] not in CHANNELS:
        raise SpecpolicyError(
            f"{path}: {where} has shape {shape}, with the channels first: expected (T, height, width, channels)"
        )
    if len(shape) != 4 or shape[-1] not in CHANNELS or shape[0] != length or size not in (None, shape[1:]):
        expected = (length, *(size or ("height", "width", 3)))
        raise SpecpolicyError(f"{path}: {where} has shape {shape}, expected ({', '.join(map(str, expected))})")
    if array.dtype != np.uint8:
        raise SpecpolicyError(f"{path}: {where} holds {array.dtype}, and images are bytes (uint8): convert them")
    check_dataset(array, where, path)
    return shape[1], shape[2], shape[3]
