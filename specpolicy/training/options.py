"""The options of a training run."""

from dataclasses import asdict, dataclass
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.precision import PRECISIONS

# How often a run looks at itself: no weight follows from it, so a run may go on with others.
WATCHING = ("log_every", "validate_every", "rollout_every", "save_every")


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of the trainer; times are in optimiser steps.

    A step learns from `accumulate` passes of `batch_size` windows each. Several processes share out every pass.
    `colour_jitter` is the largest relative change of an image's brightness, contrast and saturation. `uncommitted` is
    the share of windows without committed actions, for policies that continue some; None: as large as that of each
    other number of them.
    """

    steps: int = 10_000
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-6
    ema_power: float = 0.75
    precision: str = "float32"
    compile: bool = False
    log_every: int = 50
    validate_every: int = 500
    rollout_every: int = 0
    save_every: int = 500
    half_precision_weights: bool = False
    colour_jitter: float = 0.2
    uncommitted: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SpecpolicyError(f"precision must be one of {', '.join(PRECISIONS)}, got '{self.precision}'")
        for name in ("steps", "batch_size", "accumulate", "log_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise SpecpolicyError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.colour_jitter < 1:
            raise SpecpolicyError(f"colour_jitter must be at least 0 and below 1, got {self.colour_jitter}")
        share = self.uncommitted
        if share is not None and not (type(share) in (int, float) and 0 <= share <= 1):
            raise SpecpolicyError(f"uncommitted is a share, from 0 to 1, got {self.uncommitted}")

    def deciding(self, images: bool) -> dict[str, Any]:
        """Return the options that decide the result, without those that change nothing here, some of which runs of
        earlier versions do not have. `images`: whether the policy sees any."""
        idle = {
            **dict.fromkeys(WATCHING, True),
            "accumulate": self.accumulate == 1,
            "colour_jitter": not images,
            "uncommitted": self.uncommitted is None,
        }
        return {name: value for name, value in asdict(self).items() if not idle.get(name, False)}
