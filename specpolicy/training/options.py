"""The options of a training run."""

from dataclasses import dataclass

from specpolicy.errors import SpecpolicyError
from specpolicy.precision import PRECISIONS


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of the trainer; times are in optimiser steps."""

    steps: int = 10_000
    batch_size: int = 128
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
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SpecpolicyError(f"precision must be one of {', '.join(PRECISIONS)}, got '{self.precision}'")
        for name in ("steps", "batch_size", "log_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise SpecpolicyError(f"{name} must be at least 1, got {getattr(self, name)}")
