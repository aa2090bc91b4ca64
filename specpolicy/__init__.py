"""Diffusion policies that answer in time: exact, fast sampling for robot learning."""

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.loading import load_policy
from specpolicy.policy import DiffusionPolicy
from specpolicy.samplers import Sample, make_sampler, sample

__version__ = "0.1.0"

__all__ = [
    "DiffusionPolicy",
    "GaussianChain",
    "Sample",
    "SpecpolicyError",
    "load_policy",
    "make_sampler",
    "sample",
]
