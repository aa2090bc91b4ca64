"""Surrogates: cheap stand-ins for the network, from which the recycled drafter takes differences."""

from specpolicy.samplers.recycled.surrogates.base import Surrogate
from specpolicy.samplers.recycled.surrogates.gaussian import GaussianSurrogate
from specpolicy.samplers.recycled.surrogates.student import StudentSurrogate

__all__ = ["GaussianSurrogate", "StudentSurrogate", "Surrogate"]
