"""Normalisation of observations and actions, fixed at training time and saved with the policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

CONSTANT_RANGE = 1e-4  # a dimension that varies less is shifted to zero and not scaled
EXTREME = 1e12  # larger than any scale of data or its inverse, so float32 holds the results
Numbers = Sequence[float] | Sequence[Sequence[Sequence[float]]]  # one per dimension, or of an image's shape


@dataclass(frozen=True)
class Statistics:
    """Normalisation of one key, as stored in a checkpoint: (x - shift) * scale + offset.

    With a shift it is (x - shift) / (1 / scale) + offset, as LeRobot and robomimic round it.
    """

    scale: Numbers
    offset: Numbers
    shift: Numbers | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "offset", "shift"):
            for value in _flat(getattr(self, name), name):
                if not abs(value) <= EXTREME or (name == "scale" and abs(value) < 1 / EXTREME):
                    wanted = f"it must lie between {1 / EXTREME:g} and" if name == "scale" else "it must not exceed"
                    raise SpecpolicyError(f"{name} holds {shown(value)}: {wanted} {EXTREME:g} in size")

    def check(self, key: str, shape: int | Sequence[int]) -> None:
        """Raise unless the numbers fit a key of this shape."""
        sides = (shape,) if isinstance(shape, int) else tuple(shape)
        for name in ("scale", "offset", "shift"):
            values = getattr(self, name)
            if values is None:
                continue
            own = tuple(torch.tensor(values).shape)
            fits = own == (1,) or (len(own) == len(sides) and all(a in (1, b) for a, b in zip(own, sides, strict=True)))
            if not fits:
                raise SpecpolicyError(
                    f"the normaliser's {name} of '{key}' has the shape {list(own)}: it must have {list(sides)}, "
                    "or one number for all"
                )


def _flat(values: object, name: str) -> list[float]:
    """Return all numbers of nested lists, which must be equally long."""
    if not isinstance(values, Sequence):
        return [] if values is None else [values]  # type: ignore[list-item]
    parts = [_flat(part, name) for part in values]
    lengths = {len(part) if isinstance(part, Sequence) else 0 for part in values}
    if len(lengths) != 1:
        raise SpecpolicyError(f"{name} is empty, or its lists differ in length")
    return [value for part in parts for value in part]


class Normaliser(nn.Module):
    """Affine maps, one per key: normalise(x) = (x - shift) * scale + offset; statistics broadcast over x.

    `shift` is zero for keys without an entry. With the minimum or the mean of the data as shift, a dimension that
    hardly varies keeps its digits; with the shift folded into the offset, float32 would lose them.

    The projects that shift divide by a width in float32. So do we, and see what they see to the bit: the inverse of a
    scale is that width again, where the scale was given in float64.
    """

    def __init__(
        self,
        scales: Mapping[str, Tensor],
        offsets: Mapping[str, Tensor],
        shifts: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        self.keys = tuple(scales)
        for index, key in enumerate(self.keys):
            self.register_buffer(f"scale_{index}", scales[key].float(), persistent=False)
            self.register_buffer(f"offset_{index}", offsets[key].float(), persistent=False)
            shift = (shifts or {}).get(key)
            self.register_buffer(f"shift_{index}", None if shift is None else shift.float(), persistent=False)
            width = None if shift is None else (1 / scales[key].double()).float()
            self.register_buffer(f"width_{index}", width, persistent=False)

    @classmethod
    def min_max(cls, ranges: Mapping[str, tuple[Tensor, Tensor]]) -> "Normaliser":
        """Map each dimension's (minimum, maximum) to [-1, 1]; `ranges` maps a key to two (D,) tensors."""
        scales, offsets = {}, {}
        for key, (low, high) in ranges.items():
            low, high = low.double(), high.double()
            constant = (high - low) < CONSTANT_RANGE
            scale = torch.where(constant, torch.ones_like(low), 2 / (high - low).clamp(min=CONSTANT_RANGE))
            scales[key], offsets[key] = scale, -(low + high) / 2 * scale
        return cls(scales, offsets)

    def normalise(self, key: str, x: Tensor) -> Tensor:
        """Normalise raw values of `key` (..., D)."""
        scale, offset, shift, width = self._of(key)
        return x * scale + offset if shift is None or width is None else (x - shift) / width + offset

    def unnormalise(self, key: str, x: Tensor) -> Tensor:
        """Return raw values of normalised values of `key` (..., D)."""
        scale, offset, shift, width = self._of(key)
        return (x - offset) / scale if shift is None or width is None else (x - offset) * width + shift

    def to_config(self) -> dict[str, Statistics]:
        """Plain numbers for config.json."""
        found = {}
        for key in self.keys:
            scale, offset, shift, width = self._of(key)
            scale = scale if width is None else 1 / width.double()
            found[key] = Statistics(scale.tolist(), offset.tolist(), None if shift is None else shift.tolist())
        return found

    @classmethod
    def from_config(cls, config: Mapping[str, Statistics]) -> "Normaliser":
        """Make a normaliser from the result of `to_config`."""
        scales, offsets, shifts = (
            {
                key: torch.tensor(getattr(entry, name), dtype=torch.float64)
                for key, entry in config.items()
                if getattr(entry, name) is not None
            }
            for name in ("scale", "offset", "shift")
        )
        return cls(scales, offsets, shifts)

    def _of(self, key: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        if key not in self.keys:
            raise SpecpolicyError(f"the normaliser has no key '{key}': it knows {', '.join(self.keys)}")
        index = self.keys.index(key)
        scale, offset, shift, width = (
            getattr(self, f"{name}_{index}") for name in ("scale", "offset", "shift", "width")
        )
        return scale, offset, shift, width
