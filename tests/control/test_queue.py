"""Chunks addressed by absolute control step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specpolicy.control.queue import ChunkQueue


def chunk(start, length=6, offset=0.0):
    return np.arange(start, start + length)[:, None] + offset


def test_a_late_chunk_loses_its_first_actions():
    queue = ChunkQueue()
    queue.add(chunk(0), 0, observed=0.0, chunk=0)
    assert [queue.action(step).action[0] for step in range(3)] == [0, 1, 2]
    queue.add(chunk(1, offset=0.5), 1, observed=0.1, chunk=1)  # for the observation of step 1, there at step 3
    planned = [queue.action(step) for step in range(3, 7)]
    assert [one.action[0] for one in planned] == [3.5, 4.5, 5.5, 6.5]
    assert {one.observed for one in planned} == {0.1} and {one.chunk for one in planned} == {1}
    assert queue.action(7) is None and queue.end == 0  # over: forgotten


def test_the_chunk_before_goes_on_where_the_newest_does_not_reach():
    queue = ChunkQueue()
    queue.add(chunk(0, 10), 0, 0.0, 0)
    queue.add(chunk(4, 2, 0.5), 4, 0.4, 1)
    assert [queue.action(step).action[0] for step in range(3, 8)] == [3, 4.5, 5.5, 6, 7]


def test_a_chunk_of_the_future_is_not_used_early():
    queue = ChunkQueue()
    queue.add(chunk(5), 5, 0.0, 0)
    assert queue.action(4) is None and queue.action(5).action[0] == 5


@given(
    starts=st.lists(st.integers(0, 8), min_size=1, max_size=5).map(sorted),
    decay=st.floats(0, 3),
    step=st.integers(0, 14),
)
def test_ensembling_is_the_weighted_mean_of_all_chunks_that_know_the_step(starts, decay, step):
    queue = ChunkQueue(ensemble_decay=decay)
    for number, start in enumerate(starts):
        queue.add(chunk(start, offset=100.0 * number), start, observed=float(start), chunk=number)
    known = [(number, start) for number, start in enumerate(starts) if start <= step < start + 6]
    planned = queue.action(step)
    if not known:
        assert planned is None
        return
    weights = [np.exp(-decay * age) for age in range(len(known))]
    expected = step + 100 * sum(w * number for w, (number, _) in zip(weights, known, strict=True)) / sum(weights)
    assert planned.action[0] == pytest.approx(expected)
    observed = sum(w * start for w, (_, start) in zip(weights, known, strict=True)) / sum(weights)
    assert planned.observed == pytest.approx(observed) and planned.chunk == known[-1][0]
