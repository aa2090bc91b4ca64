"""Surrogates: cheap stand-ins for the network, from which the recycled drafter takes differences."""

from specpolicy.samplers.speculative.surrogates.base import Surrogate
from specpolicy.samplers.speculative.surrogates.gaussian import GaussianSurrogate
from specpolicy.samplers.speculative.surrogates.student import StudentSurrogate

__all__ = ["GaussianSurrogate", "StudentSurrogate", "Surrogate"]
