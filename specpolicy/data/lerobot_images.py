"""Images of a LeRobot data set in version 3: one PNG per entry, and statistics of each channel.

An entry of a column is a struct of `bytes`, the PNG, and `path`, the name it would have as a file. Statistics are of
values in [0, 1] and have the shape (3, 1, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.data.png import to_png

if TYPE_CHECKING:
    import pyarrow as pa

LEVELS = 256  # levels of a channel


def feature_of(key: str) -> str:
    """Return the feature name of an image `<camera>_image`; one that has LeRobot's name already keeps it."""
    if key.startswith("observation.image"):
        return key
    return f"observation.images.{key.removesuffix('_image')}"


def description(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the entry of `meta/info.json` for images (H, W, 3)."""
    return {"dtype": "image", "shape": list(shape), "names": ["height", "width", "channels"]}


def packed(images: np.ndarray) -> pa.Array:
    """Pack images (T, H, W, 3) uint8 into a column."""
    import pyarrow as pa

    entries = [{"bytes": to_png(image), "path": f"frame-{step:06d}.png"} for step, image in enumerate(images)]
    return pa.array(entries, type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


@dataclass
class Levels:
    """Counts of each level of each channel; all statistics follow from them exactly, for any number of frames.

    Attributes:
        counts: (3, 256).
        frames: number of frames.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros((3, LEVELS), np.int64))
    frames: int = 0

    @classmethod
    def of(cls, images: np.ndarray) -> Levels:
        """Count the levels of images (T, H, W, 3) uint8."""
        counts = [np.bincount(images[..., channel].ravel(), minlength=LEVELS) for channel in range(3)]
        return cls(np.stack(counts), len(images))

    def __add__(self, other: Levels) -> Levels:
        return Levels(self.counts + other.counts, self.frames + other.frames)

    def statistics(self, quantiles: Mapping[str, float]) -> dict[str, Any]:
        """Return minimum, maximum, mean, deviation and quantiles of each channel in [0, 1], as nested lists."""
        levels = np.arange(LEVELS) / (LEVELS - 1)
        mean = self.counts @ levels / self.counts.sum(axis=1)
        variance = (self.counts * (levels - mean[:, None]) ** 2).sum(axis=1) / self.counts.sum(axis=1)
        found = {
            "min": self._quantile(0.0),
            "max": self._quantile(1.0),
            "mean": mean,
            "std": np.sqrt(variance),
            **{name: self._quantile(share) for name, share in quantiles.items()},
        }
        return {**{name: values.reshape(3, 1, 1).tolist() for name, values in found.items()}, "count": [self.frames]}

    def _quantile(self, share: float) -> np.ndarray:
        """Return (3,) quantiles, interpolated between neighbouring values as in `numpy.quantile`."""
        reached = self.counts.cumsum(axis=1)
        place = share * (reached[:, -1] - 1)
        below, part = np.floor(place), place % 1
        low, high = (
            np.array([np.searchsorted(row, at, side="right") for row, at in zip(reached, index, strict=True)])
            for index in (below, np.ceil(place))
        )
        return (low + part * (high - low)) / (LEVELS - 1)
