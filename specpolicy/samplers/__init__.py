"""Samplers: from noise to an action chunk, given a denoiser, a chain and a condition."""

from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, Sampler, SampleStatistics
from specpolicy.samplers.registry import make_sampler, sample

__all__ = ["Denoiser", "NoiseSource", "Sample", "SampleStatistics", "Sampler", "make_sampler", "sample"]
