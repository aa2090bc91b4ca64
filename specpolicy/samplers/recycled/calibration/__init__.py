"""Calibration of the recycled sampler: prior, student, sweeps and draft lengths."""

from specpolicy.samplers.recycled.calibration.calibrate import Effort, calibrate
from specpolicy.samplers.recycled.calibration.calibration import Calibration, read_calibration
from specpolicy.samplers.recycled.calibration.distil import Distillation

__all__ = ["Calibration", "Distillation", "Effort", "calibrate", "read_calibration"]
