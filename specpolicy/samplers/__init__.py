"""Samplers: from noise to an action chunk, given a denoiser, a chain and a condition.

Each is a class of options, such as `Recycled(window=16)`. `specpolicy.make_sampler` makes one by name.
"""

from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, Sampler, SampleStatistics, Setting
from specpolicy.samplers.bound import BoundSampler
from specpolicy.samplers.densities import log_probs
from specpolicy.samplers.dpm_solver import DPMSolver
from specpolicy.samplers.ode import RK4, Euler, Midpoint
from specpolicy.samplers.picard import Picard
from specpolicy.samplers.recycled.calibration import Calibration, calibrate
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.registry import sample
from specpolicy.samplers.sequential import DDIM, DDPM
from specpolicy.samplers.speculative.samplers import ASD, Block, Reflection, Residual

__all__ = [
    "ASD",
    "DDIM",
    "DDPM",
    "RK4",
    "Block",
    "BoundSampler",
    "Calibration",
    "DPMSolver",
    "Denoiser",
    "Euler",
    "Midpoint",
    "NoiseSource",
    "Picard",
    "Recycled",
    "Reflection",
    "Residual",
    "Sample",
    "SampleStatistics",
    "Sampler",
    "Setting",
    "calibrate",
    "log_probs",
    "sample",
]
