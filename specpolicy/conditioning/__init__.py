"""Denoisers that are told more than a noisy chunk: the observation in another way than by their condition input, or the
actions that are executed before the chunk can be used."""

from specpolicy.conditioning.continued import Continuation, check_whole
from specpolicy.conditioning.given import Given, Packing
from specpolicy.conditioning.making import make_way
from specpolicy.conditioning.observed import Inpainting, LocalCondition, paint_in, x0_table
from specpolicy.conditioning.ways import Way

__all__ = [
    "Continuation",
    "Given",
    "Inpainting",
    "LocalCondition",
    "Packing",
    "Way",
    "check_whole",
    "make_way",
    "paint_in",
    "x0_table",
]
