"""Metric loggers behind one small interface (CSV, Weights & Biases), and progress bars."""

from specpolicy.logging.making import NoLogger, make_logger
from specpolicy.logging.metrics import MetricLogger, Score

__all__ = ["MetricLogger", "NoLogger", "Score", "make_logger"]
