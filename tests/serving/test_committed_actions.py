"""Committed actions reach a served policy, and clients that know nothing of them are served as ever."""

import asyncio
import dataclasses
import types

import numpy as np
import pytest
from clients import ask, raw_client
from services import Counting, frame

from specpolicy import Committed, SpecpolicyError
from specpolicy.control.chunk import continues
from specpolicy.serving import PolicyServer, RemotePlanner, in_background
from specpolicy.serving.inference import Inference
from specpolicy.serving.metrics import Metrics
from specpolicy.serving.protocol import Metadata, committed_message, read_request
from specpolicy.serving.scan import ProtocolError

COMMITTED = Committed(np.array([[7.5, 1.0], [8.5, 2.0], [9.5, 3.0]]), 2, "rtc")


class Continuing(Counting):
    """Begins with the committed actions, and keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.metadata = dataclasses.replace(self.metadata, continues=True)
        self.told = []

    def plan(self, histories, streams, committed=None):
        chunks = super().plan(histories, streams)
        self.told.append(committed)
        for chunk, one in zip(chunks, committed or [None] * len(chunks), strict=True):
            if one is not None:
                chunk.actions[: one.count] = one.actions[: one.count]
        return chunks


def test_a_remote_planner_hands_on_what_is_committed():
    service = Continuing()
    with in_background(PolicyServer(service, port=0)) as server:
        planner = RemotePlanner(f"ws://127.0.0.1:{server.port}")
        assert continues(planner)
        history = {key: np.stack([value] * 2) for key, value in frame(4).items()}
        planner.reset(1)
        assert planner.plan(history, COMMITTED).actions[:3].tolist() == [[7.5, 1], [8.5, 2], [6, 1]]
        assert planner.plan(history).actions[:2].tolist() == [[4, 1], [5, 1]]
        planner.close()
    (first,), second = service.told
    assert second is None  # a service is not told of nothing
    np.testing.assert_array_equal(first.actions, COMMITTED.actions)
    assert (first.count, first.way) == (2, "rtc")


def test_a_service_that_takes_none_says_so(server):
    planner = RemotePlanner(f"ws://127.0.0.1:{server.port}")
    assert not continues(planner)
    with raw_client(server) as websocket:
        answer = ask(websocket, {**frame(1), "committed": committed_message(COMMITTED)})
        assert answer == "this policy takes no committed actions: send no `committed`"
        assert ask(websocket, frame(1))["actions"].shape == (6, 2)  # an older client


def test_a_way_that_the_policy_lacks_is_refused_before_it_is_used():
    service = Continuing()
    service.metadata = dataclasses.replace(service.metadata, ways=("inpaint", "rtc"))
    with in_background(PolicyServer(service, port=0)) as server:
        planner = RemotePlanner(f"ws://127.0.0.1:{server.port}")
        planner.check_way("rtc")
        with pytest.raises(SpecpolicyError, match=r"stitching=trained: .*use one of inpaint, rtc"):
            planner.check_way("trained")
        with raw_client(server) as websocket:
            for wrong, message in (
                (Committed(COMMITTED.actions, 2, "trained"), "use one of inpaint, rtc"),
                (Committed(np.zeros((2, 5)), 2, "rtc"), "`committed` has actions of 5 numbers, those of this policy 2"),
            ):
                answer = ask(websocket, {**frame(1), "committed": committed_message(wrong)})
                assert isinstance(answer, str) and message in answer and "\n" not in answer
            assert not service.batches
            assert ask(websocket, {**frame(1), "committed": committed_message(COMMITTED)})["actions"].shape == (6, 2)


def test_a_server_that_says_no_ways_is_asked_for_any():
    with in_background(PolicyServer(Continuing(), port=0)) as server:
        planner = RemotePlanner(f"ws://127.0.0.1:{server.port}")
        assert planner.metadata.ways is None and "ways" not in planner.metadata.as_message()
        planner.check_way("trained")
    with pytest.raises(ProtocolError, match="`ways` is a list of names"):
        Metadata.from_message({**planner.metadata.as_message(), "ways": "rtc"})


def test_requests_of_one_way_are_planned_together():
    """Each is planned once, in the order of the oldest of its way; what continues nothing goes with any."""
    service, tried = Continuing(), []

    def plan(histories, streams, committed=None):
        ways = {one.way for one in committed or [] if one is not None}
        tried.append(streams)
        assert len(ways) <= 1, "a batch is continued in one way"
        return Continuing.plan(service, histories, streams, committed)

    async def ask_all(ways):
        inference = Inference(types.SimpleNamespace(plan=plan), Metrics(), 3)
        service.gate.clear()
        history = {key: np.stack([value] * 2) for key, value in frame(4).items()}
        first = asyncio.ensure_future(inference.plan(history, -1))
        while not tried:
            await asyncio.sleep(0.01)
        asked = [
            inference.plan(history, seed, committed=way and dataclasses.replace(COMMITTED, way=way))
            for seed, way in enumerate(ways)
        ]
        waiting = asyncio.gather(first, *asked)
        await asyncio.sleep(0.05)
        service.gate.set()
        planned = await waiting
        inference.close()
        return planned

    planned = asyncio.run(ask_all(["rtc", "guided", None, "guided", "rtc", "rtc", None, None]))
    assert tried == [[-1], [0, 2, 4], [1, 3, 6], [5, 7]]
    assert [one.batch for one in planned] == [1, 3, 3, 3, 3, 3, 2, 3, 2]


@pytest.mark.parametrize(
    "message, error",
    (
        ([1], "a map with `actions` and `count`"),
        ({"actions": [[1, 2]]}, "a map with `actions` and `count`"),
        ({"actions": "text", "count": 1}, "expected numbers"),
        ({"actions": [[1, "a"]], "count": 1}, "not an array of numbers"),
        ({"actions": [1, 2], "count": 1}, r"expected \(n, D\)"),
        ({"actions": [[1, 2], [3]], "count": 1}, "not an array of numbers"),
        ({"actions": [[float("inf"), 2]], "count": 1}, "not finite"),
        ({"actions": np.zeros((5000, 1)), "count": 1}, "n at most 4096"),
        ({"actions": [[1, 2]], "count": 2}, "2 of 1 known actions"),
        ({"actions": [[1, 2]], "count": "1"}, "whole number"),
        ({"actions": [[1, 2]], "count": 1, "way": 10 * "glue"}, "unknown way 'glue"),
    ),
)
def test_what_is_committed_is_checked(message, error):
    with pytest.raises(ProtocolError, match=error) as found:
        read_request({**frame(1), "committed": message}, Counting.shapes, 2)
    assert "\n" not in str(found.value) and len(str(found.value)) < 200
