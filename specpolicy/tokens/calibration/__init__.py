"""Calibration of draft graphs on recorded traces of the ordinary decoder."""

from specpolicy.tokens.calibration.calibration import DecoderCalibration, TokenCalibration, read_token_calibration

__all__ = ["DecoderCalibration", "TokenCalibration", "read_token_calibration"]
