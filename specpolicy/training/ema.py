"""Exponential moving average of weights with the warm-up used by Diffusion Policy."""

import torch
from torch import nn


def ema_decay(step: int, power: float = 0.75, maximum: float = 0.9999) -> float:
    """Return the decay at `step`: 1 - (1 + step)^-power, at most `maximum` (Karras's and Crowson's warm-up)."""
    return min(maximum, 1 - (1 + step) ** -power) if step > 0 else 0.0


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the weights of `average` towards those of `model`; buffers are copied."""
    ours: list[torch.Tensor] = list(average.parameters())
    theirs: list[torch.Tensor] = list(model.parameters())
    if ours:  # an encoder of vectors has no weights
        torch._foreach_lerp_(ours, theirs, 1 - decay)
    for mine, other in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(other)
