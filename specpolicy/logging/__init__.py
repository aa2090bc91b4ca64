"""Metric loggers behind one small interface (CSV, Weights & Biases), and progress bars."""

from specpolicy.logging.metrics import MetricLogger, NoLogger, Score, make_logger

__all__ = ["MetricLogger", "NoLogger", "Score", "make_logger"]
