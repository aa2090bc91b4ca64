"""Residual: redraw the rejected coordinate (Leviathan et al. 2023; in one dimension as in Soen et al. 2026)."""

import torch
from torch import Tensor

from specpolicy.samplers.speculative.coupling import draw_residual
from specpolicy.samplers.speculative.verifiers.base import TokenVerifier


class Residual(TokenVerifier):
    """Original speculative sampling: the coordinate is drawn from the density in proportion to max(q - p, 0)."""

    name = "residual"

    def target_coordinate(self, delta: Tensor, coordinate: Tensor, uniform: Tensor) -> Tensor:
        """The redrawn coordinate."""
        return draw_residual(torch.zeros_like(delta), delta, uniform)
