"""Metric loggers behind one small interface (CSV, Weights & Biases), and progress bars."""

from specpolicy.logging.making import NoLogger, check_logger, make_logger
from specpolicy.logging.metrics import MetricLogger, Score

__all__ = ["MetricLogger", "NoLogger", "Score", "check_logger", "make_logger"]
