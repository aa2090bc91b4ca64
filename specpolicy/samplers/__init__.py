"""Samplers: from noise to an action chunk, given a denoiser, a chain and a condition."""

from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, Sampler, SampleStatistics, Setting
from specpolicy.samplers.bound import BoundSampler
from specpolicy.samplers.recycled.calibration import Calibration, calibrate
from specpolicy.samplers.registry import sample

__all__ = [
    "BoundSampler",
    "Calibration",
    "Denoiser",
    "NoiseSource",
    "Sample",
    "SampleStatistics",
    "Sampler",
    "Setting",
    "calibrate",
    "sample",
]
