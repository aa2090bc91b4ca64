"""Soft weights over the whole of the previous plan (real-time chunking)."""

import math

import torch
from torch import Tensor

from specpolicy.conditioning.inpaint import Inpaint


class RealTimeChunking(Inpaint):
    """x0' = w v + (1 - w) x0, with the weights of Black et al. 2025 (arXiv 2506.07339, equation 5).

    Of n known actions the first d are committed: w = 1. From there on w falls to zero at the end of the known ones,
    c (e^c - 1) / (e - 1) with c = (n - i) / (n - d + 1). The paper guides a flow with these weights: see `Guided`.
    """

    name = "rtc"

    def weights(self, count: int, known: int) -> Tensor:
        """See `Way.weights`."""
        return soft_weights(count, known)


def soft_weights(count: int, known: int) -> Tensor:
    """Return the weights (known,) of equation 5."""
    place = torch.arange(known, dtype=torch.float64)
    left = (known - place) / (known - count + 1)
    return torch.where(place < count, 1.0, left * torch.expm1(left) / math.expm1(1)).float()
