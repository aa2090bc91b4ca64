"""Engines: several ways to run one network. All of them are denoisers, so samplers do not know which one they use."""

from specpolicy.engines.base import Engine, row_sizes
from specpolicy.engines.registry import AUTO, ENGINES, check_engine_name, make_engine

__all__ = ["AUTO", "ENGINES", "Engine", "check_engine_name", "make_engine", "row_sizes"]
