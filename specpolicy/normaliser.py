"""Normalisation of observations and actions, fixed at training time and saved with the policy."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError

CONSTANT_RANGE = 1e-4  # a dimension that varies less than this is shifted to zero and not scaled


class Normaliser(nn.Module):
    """Affine maps, one per key: normalise(x) = x * scale + offset."""

    def __init__(self, scales: Mapping[str, Tensor], offsets: Mapping[str, Tensor]):
        super().__init__()
        self.keys = tuple(scales)
        for index, key in enumerate(self.keys):
            self.register_buffer(f"scale_{index}", scales[key].float(), persistent=False)
            self.register_buffer(f"offset_{index}", offsets[key].float(), persistent=False)

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
        scale, offset = self._of(key)
        return x * scale + offset

    def unnormalise(self, key: str, x: Tensor) -> Tensor:
        """Normalised values of `key` (..., D) to raw ones."""
        scale, offset = self._of(key)
        return (x - offset) / scale

    def to_config(self) -> dict[str, Any]:
        """Plain numbers for config.json."""
        return {key: {"scale": self._of(key)[0].tolist(), "offset": self._of(key)[1].tolist()} for key in self.keys}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Normaliser":
        """The inverse of `to_config`."""
        return cls(
            {key: torch.tensor(entry["scale"], dtype=torch.float64) for key, entry in config.items()},
            {key: torch.tensor(entry["offset"], dtype=torch.float64) for key, entry in config.items()},
        )

    def _of(self, key: str) -> tuple[Tensor, Tensor]:
        if key not in self.keys:
            raise SpecpolicyError(f"the normaliser has no key '{key}': it knows {', '.join(self.keys)}")
        index = self.keys.index(key)
        return getattr(self, f"scale_{index}"), getattr(self, f"offset_{index}")
