"""Noise schedules and the Gaussian chain they define: pure numbers, no networks."""

from specpolicy.diffusion.chain import GaussianChain
from specpolicy.diffusion.flow import FlowProcess
from specpolicy.diffusion.options import ChainOptions, FlowOptions, MIPOptions
from specpolicy.diffusion.process import TrainingProcess

__all__ = ["ChainOptions", "FlowOptions", "FlowProcess", "GaussianChain", "MIPOptions", "TrainingProcess"]
