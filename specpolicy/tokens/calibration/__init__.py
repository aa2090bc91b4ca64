"""Calibration of drafts on recorded traces of the ordinary decoder."""

from specpolicy.tokens.calibration.calibrate import (
    CANDIDATES,
    DIVISIONS,
    calibrate_graphs,
    calibrate_lookahead,
    select_graphs,
)
from specpolicy.tokens.calibration.calibration import DecoderCalibration, TokenCalibration, read_token_calibration
from specpolicy.tokens.calibration.select import OBJECTIVES, mean_calls, replay, select_graph, select_tree
from specpolicy.tokens.calibration.traces import Trace, paths_of, record_traces

__all__ = [
    "CANDIDATES",
    "DIVISIONS",
    "OBJECTIVES",
    "DecoderCalibration",
    "TokenCalibration",
    "Trace",
    "calibrate_graphs",
    "calibrate_lookahead",
    "mean_calls",
    "paths_of",
    "read_token_calibration",
    "record_traces",
    "replay",
    "select_graph",
    "select_graphs",
    "select_tree",
]
