"""Residual: redraw the rejected coordinate (Leviathan et al. 2023; in one dimension as in Soen et al. 2026)."""

import numpy as np

from specpolicy.samplers.speculative.coupling import Floats, draw_residual
from specpolicy.samplers.speculative.verifiers.base import TokenVerifier


class Residual(TokenVerifier):
    """Original speculative sampling: the coordinate is drawn from the density in proportion to max(q - p, 0)."""

    name = "residual"

    def target_coordinate(self, delta: Floats, coordinate: Floats, uniform: Floats) -> Floats:
        """The redrawn coordinate."""
        return draw_residual(np.zeros_like(delta), delta, uniform)
