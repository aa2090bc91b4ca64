"""Normalisation of observations and actions, fixed at training time and saved with the policy."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError

CONSTANT_RANGE = 1e-4  # a dimension that varies less than this is shifted to zero and not scaled


class Normaliser(nn.Module):
    """Affine maps, one per key: normalise(x) = (x - shift) * scale + offset; statistics broadcast over x.

    `shift` is zero for the keys it does not name. Where it is the minimum or the mean of the data, a dimension that
    hardly varies keeps its digits; with the shift folded into the offset, float32 would lose them.
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
        """Raw values of `key` (..., D) to normalised ones."""
        scale, offset, shift = self._of(key)
        return (x if shift is None else x - shift) * scale + offset

    def unnormalise(self, key: str, x: Tensor) -> Tensor:
        """Normalised values of `key` (..., D) to raw ones."""
        scale, offset, shift = self._of(key)
        x = (x - offset) / scale
        return x if shift is None else x + shift

    def to_config(self) -> dict[str, Any]:
        """Plain numbers for config.json."""
        names = ("scale", "offset", "shift")
        return {
            key: {name: value.tolist() for name, value in zip(names, self._of(key), strict=True) if value is not None}
            for key in self.keys
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Normaliser":
        """The inverse of `to_config`."""
        scales, offsets, shifts = (
            {key: torch.tensor(entry[name], dtype=torch.float64) for key, entry in config.items() if name in entry}
            for name in ("scale", "offset", "shift")
        )
        return cls(scales, offsets, shifts)

    def _of(self, key: str) -> tuple[Tensor, Tensor, Tensor | None]:
        if key not in self.keys:
            raise SpecpolicyError(f"the normaliser has no key '{key}': it knows {', '.join(self.keys)}")
        index = self.keys.index(key)
        return getattr(self, f"scale_{index}"), getattr(self, f"offset_{index}"), getattr(self, f"shift_{index}")
