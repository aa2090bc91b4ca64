"""Noise schedules and the Gaussian chain they define: pure numbers, no networks."""

from specpolicy.diffusion.chain import GaussianChain

__all__ = ["GaussianChain"]
