"""Reflection: mirror the rejected noise (De Bortoli et al. 2025, algorithm 4; Hu et al. 2025)."""

from specpolicy.samplers.speculative.coupling import Floats
from specpolicy.samplers.speculative.verifiers.base import TokenVerifier


class Reflection(TokenVerifier):
    """Maximal coupling of two Gaussians: a rejected draft m_p + s z becomes m_q + s (z - 2 (e.z) e)."""

    name = "reflection"

    def target_coordinate(self, delta: Floats, coordinate: Floats, uniform: Floats) -> Floats:
        """The mirrored coordinate."""
        return -coordinate
