"""Samplers: from noise to an action chunk, given a denoiser, a chain and a condition."""

from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, Sampler, SampleStatistics
from specpolicy.samplers.recycled.calibration import Calibration, calibrate
from specpolicy.samplers.registry import make_sampler, sample

__all__ = [
    "Calibration",
    "Denoiser",
    "NoiseSource",
    "Sample",
    "SampleStatistics",
    "Sampler",
    "calibrate",
    "make_sampler",
    "sample",
]
