"""What every reader of another project's checkpoint returns."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class ForeignCheckpoint:
    """Another project's checkpoint: the fields of our config.json, and weights under our names."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
