"""Chunks before a run continue actions as those of the run do."""

import numpy as np
import pytest
from scripted import Numbered, Steps

from specpolicy.control.clock import ChargedClock
from specpolicy.control.execution import Execution
from specpolicy.control.warming import warm_up
from specpolicy.control.worker import InlineWorker


class Slow(Numbered):
    """Its calls say that they take the seconds of a list, then those of its last entry."""

    def __init__(self, times):
        super().__init__()
        self.times = list(times)

    def plan(self, history, committed=None):
        self.seconds = self.times.pop(0) if len(self.times) > 1 else self.times[0]
        return super().plan(history, committed)


def warmed(planner, calls=3, **options):
    """The seconds of the slowest call, and how many actions each call continued."""
    worker = InlineWorker(planner)
    worker.reset(0)
    slowest = warm_up(worker, {"step": np.array(0.0)}, calls, Execution(**options), ChargedClock(10))
    return slowest, [0 if committed is None else committed.count for _, committed in planner.told]


def test_the_last_one_continues_as_many_actions_as_the_run():
    """The first call takes five control steps, as later ones do not; no later call is left to pay for a new number."""
    slowest, counts = warmed(Slow([0.5, 0.3, 0.2]), stitching="linear")
    assert slowest == 0.2 and counts == [0, 5, 5, 2]


@pytest.mark.parametrize("calls, times, counts", ((3, [0.2], [0, 2, 2]), (1, [0.5], [0]), (0, [0.5], [])))
def test_no_chunk_is_planned_that_tells_nothing_new(calls, times, counts):
    assert warmed(Slow(times), calls, stitching="linear") == (times[0] if calls else 0, counts)


def test_a_lead_of_the_users_is_that_of_the_run():
    assert warmed(Slow([0.5, 0.2]), stitching="linear", lead=3)[1] == [0, 3, 3]


def test_chunks_that_continue_nothing_are_as_many_as_asked_for():
    planner = Steps()
    worker = InlineWorker(planner)
    worker.reset(0)
    warm_up(worker, {"step": np.array(0.0)}, 3, Execution(), ChargedClock(10))
    assert len(planner.histories) == 3
