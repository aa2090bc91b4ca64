"""Noise schedules and the Gaussian chain they define: pure numbers, no networks."""

from specpolicy.diffusion.chain import GaussianChain
from specpolicy.diffusion.options import ChainOptions
from specpolicy.diffusion.process import TrainingProcess

__all__ = ["ChainOptions", "GaussianChain", "TrainingProcess"]
