"""Engines: several ways to run one network. All of them are denoisers, so samplers do not know which one they use."""

from specpolicy.engines.auto import Beside
from specpolicy.engines.base import Engine, row_sizes
from specpolicy.engines.frames import FrameEngine, make_frame_engine
from specpolicy.engines.registry import AUTO, ENGINES, check_engine_name, make_engine

__all__ = [
    "AUTO",
    "ENGINES",
    "Beside",
    "Engine",
    "FrameEngine",
    "check_engine_name",
    "make_engine",
    "make_frame_engine",
    "row_sizes",
]
