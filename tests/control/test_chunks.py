"""What a chunk may hold: actions and costs that are numbers."""

from dataclasses import replace

import numpy as np
import pytest
from flying import fly
from scripted import Steps

from specpolicy.control.clock import PausedClock
from specpolicy.errors import SpecpolicyError


class Telling(Steps):
    """Plans chunks of which something else is told.

    Args:
        told: what, by name.
        dtype: of the actions.
    """

    def __init__(self, told=None, dtype=float, **options):
        super().__init__(**options)
        self.told, self.dtype = told or {}, dtype

    def plan(self, history):
        chunk = super().plan(history)
        return replace(chunk, actions=chunk.actions.astype(self.dtype), **self.told)


@pytest.mark.parametrize("dtype", ("bool", "complex128", "object", "S4"))
def test_actions_that_are_no_numbers_are_refused_by_their_dtype(dtype):
    with pytest.raises(SpecpolicyError, match=rf"actions of dtype \|?{dtype}: expected numbers"):
        fly(Telling(dtype=dtype), PausedClock())


@pytest.mark.parametrize("dtype", (np.float32, np.int64, np.uint8))
def test_actions_may_be_numbers_of_any_kind(dtype):
    actions, _, _ = fly(Telling(dtype=dtype), PausedClock())
    assert actions == list(range(16))


@pytest.mark.parametrize("name", ("seconds", "network_seconds", "encode_seconds", "calls", "rows"))
@pytest.mark.parametrize("value", (None, "3", float("nan")))
def test_a_chunk_whose_cost_is_no_number_is_refused_before_anything_moves(name, value):
    with pytest.raises(SpecpolicyError, match=f"a chunk's {name} is .*: expected a number"):
        fly(Telling({name: value}), PausedClock(), steps=0)


@pytest.mark.parametrize("value", (np.float32(3.0), np.int64(3), np.array(3)))
def test_a_cost_may_be_any_number(value):
    _, _, log = fly(Telling({"calls": value, "seconds": value}), PausedClock())
    assert log.summary()["calls"] == 3 and log.summary()["latency"]["max"] == 3


@pytest.mark.parametrize(
    "fault, message",
    (("nan", "not finite"), ("shape", r"shape \(3,\), the robot takes \(2,\)"), ("none", "must return a Chunk")),
)
def test_a_broken_chunk_is_refused_whole(fault, message):
    with pytest.raises(SpecpolicyError, match=message):
        fly(Steps(fault=fault, at=2), PausedClock())
