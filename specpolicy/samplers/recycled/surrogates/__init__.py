"""Surrogates: cheap approximations of the network, whose differences the recycled drafter uses."""

from specpolicy.samplers.recycled.surrogates.base import Surrogate
from specpolicy.samplers.recycled.surrogates.gaussian import GaussianSurrogate
from specpolicy.samplers.recycled.surrogates.student import StudentSurrogate

__all__ = ["GaussianSurrogate", "StudentSurrogate", "Surrogate"]
